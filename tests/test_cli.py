"""What all commands share: help, errors, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import typer
from conftest import written
from rich.console import Console
from tiny_models import Outcome, tiny_model

import ianet
from ianet.cli import app as cli
from ianet.cli.shared import parse_options, print_table

COMMANDS = sorted(
    path.stem for path in Path(cli.__file__).parent.glob("commands/*.py") if path.stem[0] != "_"
)


def test_the_help_names_each_command(run: Callable[..., Outcome]) -> None:
    outcome = run("--help")
    assert outcome.code == 0
    assert re.findall(r"^  (\w+) +[A-Z].*\.$", outcome.output, re.MULTILINE) == COMMANDS
    assert run("--version").output == f"ianet {ianet.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_examples_and_json(command: str, run: Callable[..., Outcome]) -> None:
    text = run(command, "--help").output
    examples = text[text.index("Examples:") : text.index("Arguments:")]
    assert examples.count(f"ianet {command} ") >= 2
    assert "--json" in text


def test_ianet_alone_prints_the_help(run: Callable[..., Outcome]) -> None:
    outcome = run()
    assert (outcome.code, outcome.output) == (2, "")
    assert outcome.errors.startswith("Usage: ianet [OPTIONS] COMMAND [ARGS]...\n")
    assert outcome.errors.count("\n") > 10


@pytest.mark.parametrize(
    ("arguments", "code", "output"),
    [("--version >&-", 0, ""), ("validate nope 2>&-", 2, ""), ("--version >&- 2>&-", 0, "")],
)
def test_a_stream_that_the_shell_closes_takes_nothing(
    arguments: str, code: int, output: str
) -> None:
    command = f"{sys.executable} -m ianet {arguments}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (code, output, output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed"], "error: Missing argument 'MODEL'.\n"),
        (["embed", "m", "p", "-o", "f.csv", "--btch", "2"], "error: No such option: --btch"),
        (["embed", "m", "p", "-o", "f.csv", "--batch", "0"], "error: Invalid value for '--batch'"),
        (["embed", "m", "p", "-o", "f.csv"], "error: m does not exist. Expected: a model: a fol"),
        (["embd"], "error: No such command 'embd'."),
        (["embed", "m", "", "-o", "f.csv"], "error: an argument is empty: a variable of the"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, run: Callable[..., Outcome]
) -> None:
    outcome = run(*arguments)
    assert (outcome.code, outcome.output) == (2, "")
    assert outcome.errors.startswith(message)
    assert outcome.errors.count("\n") == 1


def test_a_traceback_is_shown_where_asked_for(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IANET_DEBUG", "1")
    with pytest.raises(FileNotFoundError, match="m does not exist"):
        run("embed", "m", "p", "-o", "f.csv")


@pytest.mark.slow
def test_an_argument_that_is_not_utf8_is_refused() -> None:
    """In another process, as pytest-xdist ends at a failure whose text is not UTF-8."""
    for name, message in (
        (b"caf\xe9.png", rb"error: the command holds caf\xe9.png, which is not UTF-8: rename it"),
        ("café.png".encode(), b"error: model does not exist. Expected: a model: "),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ianet", "embed", "model", name, "-o", "f.csv"],
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.startswith(message)
        assert done.stderr.count(b"\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_signs_that_the_output_lacks_are_replaced(encoding: str) -> None:
    code = (
        "import typer; from ianet.cli import app as cli; from ianet.cli.shared import *\n"
        "def name(): print_table(['é ✗'], [['a']]); print_json('é ✗')\n"
        "cli.app = typer.Typer(); cli.app.command()(name); cli.run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    first, _, last = done.stdout.decode(encoding).split("\n")[:3]
    assert first.rstrip() == {"ascii": "? ?", "latin-1": "é ?", "utf-8": "é ✗"}[encoding]
    assert json.loads(last) == "é ✗"
    assert done.stderr == b""


def read_missing() -> None:
    Path("none").read_text()


def parse_no_number() -> None:
    int("a")


def raise_here() -> None:
    raise ValueError("made by this file")


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (read_missing, "[Errno 2] No such file or directory: 'none' (IANET_DEBUG=1 shows the trac"),
        (parse_no_number, "invalid literal for int() with base 10: 'a' (IANET_DEBUG=1 shows the t"),
        (raise_here, "made by this file (IANET_DEBUG=1 shows the traceback)"),
        (lambda: parse_options(["a"]), "--option a: write it as name=value\n"),
    ],
)
def test_an_error_without_a_message_for_a_person_says_how_to_see_more(
    function: Callable[[], object],
    error: str,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call(name: str) -> None:
        function()

    app = typer.Typer()
    app.command()(call)
    monkeypatch.setattr(cli, "app", app)
    outcome = run("name")
    assert (outcome.code, outcome.output) == (2, "")
    assert outcome.errors.startswith(f"error: {error}")
    assert outcome.errors.count("\n") == 1


def test_ctrl_c_is_quiet(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(name: str) -> None:
        raise KeyboardInterrupt

    app = typer.Typer()
    app.command()(stop)
    monkeypatch.setattr(cli, "app", app)
    assert run("name") == (130, "", "stopped\n")


@pytest.mark.slow
def test_ctrl_c_is_quiet_while_commands_are_imported(tmp_path: Path) -> None:
    stand_in = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "typer.py").write_text(stand_in)
    done = subprocess.run(
        [sys.executable, "-m", "ianet", "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


VALIDATE = ["validate", "photos", "--reader", "persons", "--cameras", "ignore"]


@contextmanager
def closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def call(
    words: list[str], folder: Path, unbuffered: str, **streams: Any
) -> subprocess.CompletedProcess[bytes]:
    variables = {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "ianet", *words]
    return subprocess.run(command, cwd=folder, env=os.environ | variables, check=False, **streams)


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], VALIDATE, [*VALIDATE, "--json"]])
def test_a_closed_pipe_is_quiet_and_no_answer(
    words: list[str], unbuffered: str, tmp_path: Path
) -> None:
    """typer, rich and print() meet the pipe, at once or when their buffer is flushed."""
    written(tmp_path / "photos", ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"])
    with closed_pipe() as writer:
        done = call(words, tmp_path, unbuffered, stdout=writer, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_that_nobody_reads_is_bad_input(unbuffered: str, tmp_path: Path) -> None:
    with closed_pipe() as writer:
        done = call(["validate", "none"], tmp_path, unbuffered, stderr=writer)
    assert done.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_has_no_space_is_an_error(unbuffered: str, tmp_path: Path) -> None:
    written(tmp_path / "photos", ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"])
    with Path("/dev/full").open("w") as full:
        done = call(
            [*VALIDATE, "--json"], tmp_path, unbuffered, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert re.fullmatch(rb"error: .*No space left on device.*\n", done.stderr)


@pytest.mark.slow
def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ianet", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"ianet {ianet.__version__}\n"


def test_a_table_shows_text_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["path", "rank"], [["[red]a.jpg[/red]", 1], ["b", 10]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["path              rank", "[red]a.jpg[/red]     1", "b                   10"]


@pytest.mark.slow
def test_a_terminal_shows_a_spinner_while_a_step_takes_its_time(
    tmp_path: Path, run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tmp_path / "model")
    photos = written(tmp_path / "photos", [f"{person}/{number}.jpg" for person in "ab"
                                           for number in "12"])  # fmt: skip
    first, checkpoint = photos / "a/1.jpg", tmp_path / "checkpoint.pth"
    torch.save(torchvision.models.mobilenet_v2().state_dict(), checkpoint)
    reader = ("--reader", "persons", "--cameras", "ignore")
    size = ("--backbone", "mobilenet_v2", "--height", "64", "--width", "32")
    exported = ("export", model, "-o", tmp_path / "model.pt2", "--format", "pt2")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("ianet.export.REPEATS", 1)
    for steps, *arguments in (
        (["comparing"], "compare", model, first, first),
        (["drawing"], "attention", model, first, "--point", "0.5,0.5", "-o", tmp_path / "a.png"),
        (["converting"], "convert", checkpoint, *size, "-o", tmp_path / "converted"),
        (["scoring"], "evaluate", model, photos, *reader, "--rerank"),
        (["exporting", "scoring"], *exported, "--check", photos, *reader),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Console, "is_terminal", True)
            outcome = run(*arguments)
        assert outcome.code == 0
        assert outcome.output
        for step in steps:
            assert re.search(rf"[\u2800-\u28ff]\S* {step}", outcome.errors), step
            assert step not in outcome.output
    assert "comparing" not in run("compare", model, first, first).errors
