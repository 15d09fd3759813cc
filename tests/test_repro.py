"""How jobs are run, with a stand-in for DVC.

What the stages really do: tests/test_pipeline.py.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import repro, shell
from pipeline.commit import find_changes
from pipeline.plan.plan import load_plan
from pipeline.plan.runs import Evaluation, Run
from pipeline.repro import Job
from pipeline.shell import EVENTS

EMIT = (
    "import json, os, pathlib, sys\n"
    "def emit(event, **fields):\n"
    f"    with open(os.environ[{EVENTS!r}], 'a') as file:\n"
    "        file.write(json.dumps({'event': event, **fields}) + '\\n')\n"
    "def start(stage='train'):\n"
    "    emit('started', command=f'pipeline/stages/{stage}.py', arguments=['d.a.r.0'])\n"
)
"""What a stage calls, in a stand-in."""


def build_jobs(
    monkeypatch: pytest.MonkeyPatch, folder: Path, program: str, *networks: str
) -> list[Job]:
    """Jobs whose DVC is a Python program; its arguments are "repro", "--single-item", stages."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(repro, "DVC", (sys.executable, "-c", EMIT + program))
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: None)
    monkeypatch.setattr(repro, "time", clock)  # no pause before another attempt
    runs = [Run("d", network, "r", 0) for network in networks]
    return [Job(run, [Evaluation(run, "d")], threads=1) for run in runs]


def attempts() -> int:
    """How often a stand-in that counts was started."""
    return len(Path("attempts").read_text())


COUNT = (
    "path = pathlib.Path('attempts'); n = len(path.read_text()) if path.exists() else 0\n"
    "path.write_text('x' * (n + 1))\n"
)


def test_a_job_that_dvc_did_not_start_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever DVC prints: what counts is that no stage started, or all that started finished."""
    program = COUNT + (
        "if n == 0: sys.exit('some message')\n"
        "start(); emit('epoch', epoch=3, loss=1.25); emit('finished')\n"
        "if n == 1: sys.exit(1)\n"
        "start('evaluate'); emit('scored', summary='d.a.r.0: top-1 50.0%'); emit('finished')\n"
    )
    [job] = build_jobs(monkeypatch, tmp_path, program, "a")
    ends: list[str] = []
    failed = repro.run_jobs([job], 1, lambda job: ends.append(job.last))
    assert failed == []
    assert ends == ["d.a.r.0: top-1 50.0%"]
    assert attempts() == 3
    assert job.stages == ["train@d.a.r.0", "evaluate@d.a.r.0", "model@d.a.r.0"]
    assert job.log == Path("build/logs/d.a.r.0.log")
    assert job.reports == Path("build/logs/d.a.r.0.jsonl")
    assert [event["event"] for event in job.events] == [
        "started", "epoch", "finished", "started", "scored", "finished",
    ]  # fmt: skip


def test_an_epoch_shows_while_the_stage_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = build_jobs(monkeypatch, tmp_path, "", "a")
    job.reports.parent.mkdir(parents=True)
    lines = '{"event": "started"}\n{"event": "node", "name": "gpu-3"}\n'
    lines += '{"event": "epoch", "epoch": 7, "loss": 1.2344}\n'
    job.reports.write_text(lines + '{"event": "epoch", "epoch": 8, "lo')
    job.follow()
    assert job.node == "gpu-3"
    assert job.last == "epoch 7, loss 1.234"  # a line that is half written waits
    assert not job.is_untouched()


def test_a_job_gives_up_after_some_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = build_jobs(monkeypatch, tmp_path, COUNT + "sys.exit(1)", "a")
    assert repro.run_jobs([job], 1, lambda job: None) == [job]
    assert attempts() == repro.TRIES
    assert job.last == "error: DVC failed: no output"


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("emit('error', message='error: no such thing'); sys.exit(1)", "error: no such thing"),
        # For want of memory: started, and no word more.
        ("os.kill(os.getpid(), 9)", "error: train d.a.r.0 was killed, or its node: epoch 3, loss"),
    ],
)
def test_a_stage_that_failed_is_not_tried_again(
    end: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = f"{COUNT}start(); emit('epoch', epoch=3, loss=1.25)\n{end}"
    [job] = build_jobs(monkeypatch, tmp_path, program, "a")
    assert repro.run_jobs([job], 1, lambda job: None) == [job]
    assert attempts() == 1
    assert job.last.startswith(last)


def test_a_training_that_dvc_cannot_save_is_not_repeated_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full cache, say: the second training shows that the first was not kept."""
    program = f"{COUNT}start(); emit('finished'); print('ERROR: no space left'); sys.exit(1)"
    [job] = build_jobs(monkeypatch, tmp_path, program, "a")
    assert repro.run_jobs([job], 1, lambda job: None) == [job]
    assert attempts() == 2
    assert job.last == "error: DVC failed: ERROR: no space left"


def test_a_full_disk_is_named_and_costs_no_second_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "ERROR: failed to reproduce 'a': [Errno 28] No space left on device"
    cache = tmp_path / "cache"
    cache.mkdir()
    program = (
        f"if 'cache' in sys.argv: print({str(cache)!r}); sys.exit()\n"
        f"{COUNT}start(); emit('finished'); print({reason!r}); sys.exit(1)"
    )
    [job] = build_jobs(monkeypatch, tmp_path, program, "a")
    space = {cache: 5, tmp_path: 7}
    usage = SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=space[path]))
    monkeypatch.setattr(repro, "shutil", usage)
    assert repro.run_jobs([job], 1, lambda job: None) == [job]
    assert attempts() == 1
    assert job.last == f"error: DVC failed: {reason}: make space in {cache}"


def test_a_failure_costs_no_other_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "open('runs.txt', 'a').write(sys.argv[3] + '\\n'); start()\n"
        "if 'train@d.b.r.0' in sys.argv:\n"
        "    emit('error', message='error: no such thing'); sys.exit(1)\n"
        "emit('finished')\n"
    )
    jobs = build_jobs(monkeypatch, tmp_path, program, "a", "b", "c")
    failed = repro.run_jobs(jobs, 2, lambda job: None)
    assert [job.run.network for job in failed] == ["b"]
    assert failed[0].last == "error: no such thing"
    assert sorted(Path("runs.txt").read_text().split()) == [
        f"train@d.{network}.r.0" for network in "abc"
    ]


def test_runs_that_start_from_a_model_wait_for_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """a starts from b, c from d, which fails: c is not begun."""
    program = (
        "open('runs.txt', 'a').write(sys.argv[3] + '\\n'); start()\n"
        "if 'train@d.d.r.0' in sys.argv:\n"
        "    emit('error', message='error: no such thing'); sys.exit(1)\n"
        "emit('finished')\n"
    )
    jobs = build_jobs(monkeypatch, tmp_path, program, *"abcd")
    starts = {"a": [jobs[1].run], "c": [jobs[3].run]}
    plan: Any = SimpleNamespace(starts=lambda run: starts.get(run.network, []))
    ends: list[str] = []
    failed = repro.run_waves(jobs, plan, 2, lambda job: ends.append(job.run.network))
    assert [job.run.network for job in failed] == ["d", "c"]
    assert failed[1].last == "error: d.c.r.0 starts from d.d.r.0, which failed"
    order = Path("runs.txt").read_text().split()
    assert sorted(order[:2]) == ["train@d.b.r.0", "train@d.d.r.0"]
    assert order[2:] == ["train@d.a.r.0"]
    assert sorted(ends) == ["a", "b", "c", "d"]


def test_a_job_that_cannot_start_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, or where DVC is missing: nobody waits for ever."""
    program = "emit('scored', summary='d.b.r.0: top-1 50.0%')"
    jobs = build_jobs(monkeypatch, tmp_path, program, "a", "b")
    jobs[0].log.mkdir(parents=True)  # a folder cannot be written to
    assert repro.run_jobs(jobs, 1, lambda job: None) == jobs[:1]
    assert jobs[0].last.startswith("error: [Errno 21] Is a directory")
    assert jobs[1].last == "d.b.r.0: top-1 50.0%"


def test_a_log_holds_what_the_stages_print_and_events_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "print('to stdout'); print('to stderr', file=sys.stderr); start()"
    for _ in range(2):
        [job] = build_jobs(monkeypatch, tmp_path, program + "; emit('finished')", "a")
        repro.run_jobs([job], 1, lambda job: None)
    assert sorted(job.log.read_text().splitlines()) == ["to stderr", "to stdout"]
    assert len(job.events) == 2


@pytest.mark.slow
def test_stopping_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which nohup ignores
        "open(sys.argv[3] + '.up', 'w').close()\ntry: time.sleep(60)\n"
        "except KeyboardInterrupt: open(sys.argv[3], 'w').close(); sys.exit(1)"
    )
    jobs = build_jobs(monkeypatch, tmp_path, program, "a", "b", "c")
    monkeypatch.setattr(repro, "time", time)

    class Interrupted(repro.SimpleQueue):  # type: ignore[type-arg, misc]
        """Ctrl-C, once two jobs are under way."""

        def get(self, *_: object) -> object:
            while len(list(tmp_path.glob("*.up"))) < 2:
                time.sleep(0.05)
            time.sleep(0.5)  # until both sleep
            raise KeyboardInterrupt

    monkeypatch.setattr(repro, "SimpleQueue", Interrupted)
    # The stand-in is a DVC that has no stage.
    monkeypatch.setattr(shell, "PATIENCE", 1)
    with pytest.raises(KeyboardInterrupt):
        repro.run_jobs(jobs, 2, lambda job: None)
    assert sorted(path.name for path in tmp_path.glob("train@*.0")) == [
        "train@d.a.r.0",
        "train@d.b.r.0",
    ]
    assert jobs[2].process is None


def test_the_results_of_targets_are_named() -> None:
    plan = load_plan()
    assert repro.find_results(plan, ["table4f", "figure7", "ranks"]) == [
        "results/tables/table4f.html",
        "results/figures/figure7.svg",
        "results/ranks/ranks.html",
    ]
    for target in plan.experiments:
        assert len(repro.find_results(plan, [target])) == 1


def test_committed_files_that_differ_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_changes("results") == []  # no repository
    git = ("git", "-c", "user.name=n", "-c", "user.email=e")
    Path("results/tables").mkdir(parents=True)
    for name in ("results/tables/a.csv", "results/b.csv", "c.csv"):
        Path(name).write_text("1")
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "first")):
        subprocess.run([*git, *command], check=True)
    assert find_changes("results") == []
    for name in ("results/tables/a.csv", "c.csv", "results/new.csv"):
        Path(name).write_text("2")
    assert find_changes("results") == ["results/tables/a.csv"]


@pytest.mark.parametrize(
    ("number", "text"), [(0.4, "a minute"), (1.4, "a minute"), (27.6, "28 minutes")]
)
def test_minutes(number: float, text: str) -> None:
    assert repro.format_minutes(number) == text


def test_the_time_left_counts_what_jobs_under_way_have_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four jobs of 100 s, two at a time: one is done, one is half done, two wait."""
    jobs = build_jobs(monkeypatch, tmp_path, "", *"abcd")
    monkeypatch.setattr(repro.time, "monotonic", lambda: 150.0)
    jobs[0].start, jobs[0].seconds = 0.0, 100.0
    jobs[1].start = 100.0
    assert repro.estimate_seconds_left(jobs, jobs[:1], 2) == (50 + 100 + 100) / 2


def test_an_estimate_is_of_trainings_alone() -> None:
    plan = load_plan()
    runs = [Run("synthetic", network, "quick", 0) for network in ("base", "stage3")]
    minutes = plan.settings.recipes["quick"].minutes
    train = {f"train@{run.key}" for run in runs}
    start = f"train@{plan.starts(runs[0])[0].key}"
    assert repro.estimate_minutes(runs, plan, train) == 2 * minutes
    assert repro.estimate_minutes(runs, plan, train - {f"train@{runs[0].key}"}) == minutes
    assert repro.estimate_minutes(runs, plan, {start}) == 2 * minutes  # both start from its model
    assert repro.estimate_minutes(runs, plan, {f"evaluate@{runs[0].key}"}) is None
    paper = Run("market1501", "base", "paper", 0)
    assert repro.estimate_minutes([paper], plan, {f"train@{paper.key}"}) is None


@pytest.mark.parametrize("stale", [True, False])
def test_the_first_line_names_the_logs_of_what_is_done(
    stale: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed at the moment at which the first run begins."""
    plan = load_plan()
    evaluations = plan.evaluations(["table4f"])
    count = len({evaluation.run for evaluation in evaluations})
    stages = {f"train@{evaluation.run.key}" for evaluation in evaluations} if stale else {"table4f"}
    monkeypatch.setattr(repro, "find_stale_stages", lambda: stages)
    monkeypatch.setattr(repro, "rehearse", lambda keys, plan: dict.fromkeys(keys, OSError()))
    monkeypatch.setattr(repro, "run_waves", lambda *_: [])
    for name in ("_dvc_repro", "make_page"):
        monkeypatch.setattr(repro, name, lambda *_: None)
    repro.reproduce(plan, ["table4f"])
    first, *lines = capsys.readouterr().out.splitlines()
    if stale:
        assert first == f"{count} runs, {count} of them to do. Logs: build/logs/<key>.log"
        assert lines[0].startswith(f"{count} runs to do, 1 at a time: about ")
        assert lines[0].endswith(" where a core is as fast as ours")
        assert len(lines) == 2
    else:
        assert first == f"{count} runs, 0 of them to do"
        assert len(lines) == 1
    assert lines[-1].startswith("done: ")
