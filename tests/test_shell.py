"""How a command ends: by an error, by Ctrl-C and by SIGTERM; its events and its log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import Timeout

from pipeline import shell
from pipeline.config.settings import SettingsError

ROOT = Path(__file__).parents[1]
VARIABLES = (shell.EVENTS, shell.DEBUG, shell.VERBOSE)
STOPPED = "stopped; the same command resumes from here\n"


def start(
    folder: Path, body: str, *arguments: str, ignore: bool = False, **variables: str
) -> subprocess.Popen[str]:
    """Start a command in a folder.

    Args:
        folder: its working directory.
        body: of its main function, lines of Python.
        arguments: its command line.
        ignore: whether its parent ignores SIGINT, as a shell's `command &` does.
        variables: of its environment.
    """
    script = folder / "script.py"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    script.write_text(
        "import logging, os, time\n"
        "from pipeline.config.settings import SettingsError\n"
        "from pipeline.shell import command, parser\n"
        "def main():\n"
        "    parser('text', 'script').parse_args()\n"
        f"{lines}\n"
        "command(main)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    before = signal.getsignal(signal.SIGINT)
    if ignore:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(ROOT), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def run(folder: Path, body: str, *arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run a command; returns its exit status, output and messages."""
    process = start(folder, body, *arguments, ignore=False, **variables)
    output, messages = process.communicate(timeout=60)
    return process.returncode, output, messages


def read_events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_command_that_succeeds_says_nothing_of_its_own(tmp_path: Path) -> None:
    assert run(tmp_path, "print('result')") == (0, "result\n", "")


def test_a_mistake_in_an_input_is_one_line(tmp_path: Path) -> None:
    status = run(tmp_path, "raise SettingsError('params.yaml: no such network')")
    assert status == (1, "", "error: params.yaml: no such network\n")
    assert not (tmp_path / shell.LOGS).exists()


def test_an_error_with_a_message_for_a_person_is_one_line(tmp_path: Path) -> None:
    body = "from pathlib import Path; from ianet.readers import guess_reader"
    body += "; guess_reader(Path('none'))"
    status = run(tmp_path, body)
    assert status == (1, "", "error: none does not exist. Expected: a data set\n")
    assert not (tmp_path / shell.LOGS).exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("int('x')", "invalid literal for int() with base 10: 'x'"),
        ("open('none')", "[Errno 2] No such file or directory: 'none'"),
    ],
)
def test_another_error_names_a_file_with_its_traceback(
    tmp_path: Path, body: str, message: str
) -> None:
    status, output, messages = run(tmp_path, body)
    assert (status, output) == (1, "")
    match = re.fullmatch(rf"error: {re.escape(message)} \(traceback: (.+)\)\n", messages)
    assert match, messages
    text = (tmp_path / match[1]).read_text()
    assert text.startswith("Traceback (most recent call last):\n")
    assert f"    {body}\n" in text
    assert text.endswith(f"Error: {message}\n")


def test_where_no_file_can_be_written_the_error_is_still_one_line(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("in the place of the folder")
    assert run(tmp_path, "raise OSError('the disk is full')") == (
        1,
        "",
        "error: the disk is full\n",
    )


@pytest.mark.parametrize("error", ["SettingsError", "ValueError", "OSError"])
def test_debugging_shows_the_traceback_at_once(tmp_path: Path, error: str) -> None:
    status, _, messages = run(tmp_path, f"raise {error}('wrong')", IANET_DEBUG="1")
    assert status == 1
    assert messages.startswith("Traceback (most recent call last):\n")
    assert messages.endswith(f"{error}: wrong\n")
    assert not (tmp_path / shell.LOGS).exists()


def test_debugging_leaves_the_event_of_an_error(tmp_path: Path) -> None:
    """By which `make repro` tells a stage that failed from one that was killed."""
    events = tmp_path / "events.jsonl"
    run(tmp_path, "raise ValueError('wrong')", IANET_DEBUG="1", IANET_EVENTS=str(events))
    last = json.loads(events.read_text().splitlines()[-1])
    assert last == {"event": "error", "message": "error: wrong"}


def test_a_defect_shows_its_traceback(tmp_path: Path) -> None:
    status, _, messages = run(tmp_path, "{}['name']")
    assert status == 1
    assert messages.startswith("Traceback (most recent call last):\n")
    assert messages.endswith("KeyError: 'name'\n")


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_says_that_it_resumes(
    tmp_path: Path, stop: signal.Signals, ignore: bool
) -> None:
    body = "print('begun', flush=True)\ntime.sleep(60)"
    process = start(tmp_path, body, ignore=ignore)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(stop)
    output, messages = process.communicate(timeout=30)
    assert (process.returncode, output, messages) == (1, "", STOPPED)


STAGE = """
import sys, time
from pathlib import Path
print("begun", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.5)
    Path("checkpoint").touch()
    sys.exit(3)
"""
DVC = """
import subprocess, sys, time
from pathlib import Path
code = subprocess.call("python stage.py", shell=True)
time.sleep(1)
Path("dvc.lock").write_text(str(code))
sys.exit(255)
"""
WAITING_DVC = """
import sys, time
print("begun", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(255)
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_reaches_the_stage_and_lets_dvc_write(tmp_path: Path, stop: signal.Signals) -> None:
    (tmp_path / "stage.py").write_text(STAGE)
    (tmp_path / "dvc.py").write_text(DVC)
    assert stop_dvc(tmp_path, stop) == (1, "", STOPPED)
    assert (tmp_path / "checkpoint").exists()
    assert (tmp_path / "dvc.lock").read_text() == "3"


def test_a_stop_ends_a_dvc_that_waits_for_a_lock(tmp_path: Path) -> None:
    (tmp_path / "dvc.py").write_text(WAITING_DVC)
    start_time = time.monotonic()
    assert stop_dvc(tmp_path, signal.SIGINT, "shell.PATIENCE = 0.5") == (1, "", STOPPED)
    assert time.monotonic() - start_time < 30


def stop_dvc(folder: Path, stop: signal.Signals, settings: str = "pass") -> tuple[int, str, str]:
    """Stop a command that runs dvc.py of a folder as DVC; returns as `run`."""
    body = (
        "import sys\nfrom pipeline import shell\nshell.DVC = (sys.executable, 'dvc.py')\n"
        f"{settings}\nshell.run_command(*shell.DVC, 'repro')"
    )
    process = start(folder, body)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(stop)
    output, messages = process.communicate(timeout=30)
    return process.returncode, output, messages


def test_ctrl_c_is_quiet_while_a_command_is_imported(tmp_path: Path) -> None:
    stand_in = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "filelock.py").write_text(stand_in)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.plan", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("body", "end"),
    [
        ("pass", [{"event": "finished"}]),
        ("raise SettingsError('wrong')", [{"event": "error", "message": "error: wrong"}]),
        ("raise KeyboardInterrupt", []),
    ],
)
def test_events_are_lines_of_json(tmp_path: Path, body: str, end: list[dict[str, str]]) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "older"}\n')
    run(tmp_path, body, "-v", IANET_EVENTS=str(path))
    command = {"command": str(tmp_path / "script.py"), "arguments": ["-v"]}
    assert read_events(path) == [{"event": "older"}, {"event": "started", **command}, *end]


def test_the_event_of_an_error_names_the_file_with_its_traceback(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    _, _, messages = run(tmp_path, "raise ValueError('wrong')", IANET_EVENTS=str(path))
    assert "traceback: " in messages
    assert read_events(path)[1:] == [{"event": "error", "message": messages.rstrip("\n")}]


def test_events_have_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(shell.EVENTS, raising=False)
    shell.emit("epoch", epoch=0)  # to no file
    path = tmp_path / "events.jsonl"
    monkeypatch.setenv(shell.EVENTS, str(path))
    shell.emit("epoch", epoch=1, loss=0.5)
    shell.emit("epoch", epoch=2, loss=0.25)
    assert read_events(path) == [
        {"event": "epoch", "epoch": 1, "loss": 0.5},
        {"event": "epoch", "epoch": 2, "loss": 0.25},
    ]


LOG = """
logging.getLogger('pipeline.part').debug('detail')
logging.getLogger('pipeline.part').info('news')
logging.getLogger('library').info('advice')
logging.getLogger('library').error('failure')
""".strip()


def test_the_log_of_the_pipeline_is_plain_lines(tmp_path: Path) -> None:
    assert run(tmp_path, LOG) == (0, "", "news\nfailure\n")


@pytest.mark.parametrize("variables", [{}, {"IANET_VERBOSE": "1"}])
def test_a_verbose_log_has_details_with_times(tmp_path: Path, variables: dict[str, str]) -> None:
    arguments = () if variables else ("-v",)
    status, output, messages = run(tmp_path, LOG, *arguments, **variables)
    assert (status, output) == (0, "")
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    lines = (
        "DEBUG pipeline.part: detail",
        "INFO pipeline.part: news",
        "INFO library: advice",
        "ERROR library: failure",
    )
    assert re.fullmatch("".join(rf"{time} {line}\n" for line in lines), messages), messages


def test_a_command_that_a_verbose_command_starts_is_verbose(tmp_path: Path) -> None:
    assert run(tmp_path, "print(os.environ.get('IANET_VERBOSE'))", "-v")[1] == "1\n"
    assert run(tmp_path, "print(os.environ.get('IANET_VERBOSE'))")[1] == "None\n"


FOLDER = str(Path(sys.executable).parent)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/usr/bin:/bin", f"{FOLDER}:/usr/bin:/bin"),
        (f"{FOLDER}:/bin", f"{FOLDER}:/bin"),
        ("", f"{FOLDER}:{os.defpath}"),
    ],
)
def test_what_a_command_starts_as_python_is_its_own(
    tmp_path: Path, path: str, expected: str
) -> None:
    """DVC starts the stages so, also where no environment is activated."""
    assert run(tmp_path, "print(os.environ['PATH'])", PATH=path) == (0, f"{expected}\n", "")


def test_help_shows_the_command_and_its_description(tmp_path: Path) -> None:
    status, output, _ = run(tmp_path, "pass", "--help")
    assert status == 0
    assert output.startswith("usage: python -m script ")
    assert "\ntext\n" in output


def test_work_that_another_process_does_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "folder" / "work.lock"
    with shell.lock_work(lock, "making results in this folder"):
        script = (
            "import sys; from pathlib import Path; from pipeline.shell import lock_work\n"
            "with lock_work(Path(sys.argv[1]), 'making results in this folder'): pass"
        )
        process = subprocess.run(
            [sys.executable, "-c", script, str(lock)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 1
        assert process.stderr.endswith(
            "SettingsError: another process is making results in this folder: wait for that "
            f"process, or stop it (`fuser {lock}` shows its id)\n"
        )
    with shell.lock_work(lock, "making results in this folder"):
        pass


def test_an_error_of_the_work_itself_is_not_taken_for_another_process(tmp_path: Path) -> None:
    """The lock of a storage raises the same kind of error."""
    lock, other = tmp_path / "work.lock", tmp_path / "other.lock"
    with (
        shell.lock_work(other, "other work"),
        pytest.raises(SettingsError, match=r"^another process is doing other work: "),
        shell.lock_work(lock, "doing work"),
        shell.lock_work(other, "doing other work"),
    ):
        pytest.fail("two at a time")
    with pytest.raises(Timeout), shell.lock_work(lock, "doing work"):
        raise Timeout(str(other))
