"""How trainings are worked off, with a stand-in for DVC.

What the stages really do: tests/test_pipeline.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline import repro
from pipeline.plan import Evaluation, Run
from pipeline.repro import Job


def jobs(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str, *networks: str) -> list[Job]:
    """Jobs whose DVC is a Python program; its arguments are "repro", "--single-item", stages."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(repro, "DVC", (sys.executable, "-c", program))
    runs = [Run("d", network, "r", 0) for network in networks]
    return [Job(run, [Evaluation(run, "d")], threads=1) for run in runs]


def test_a_busy_path_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import pathlib, sys; tried = pathlib.Path('tried'); n = len(tried.read_text()) if"
        " tried.exists() else 0; tried.write_text('x' * (n + 1));"
        " print('ERROR: path is busy' if n == 0 else 'd-a-r-0: top-1 50.0%'); sys.exit(n == 0)"
    )
    [job] = jobs(monkeypatch, tmp_path, program, "a")
    told: list[str] = []
    failed = repro.work_off([job], 1, lambda job: told.append(job.last))
    assert failed == []
    assert told == ["d-a-r-0: top-1 50.0%"]
    assert Path("tried").read_text() == "xx"
    assert job.stages == ["train@d-a-r-0", "evaluate@d-a-r-0"]


def test_a_failure_is_not_tried_again_and_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import sys; bad = 'train@d-b-r-0' in sys.argv; print('error: no such thing' if bad else"
        " ''); open('runs.txt', 'a').write(sys.argv[3] + '\\n'); sys.exit(bad)"
    )
    three = jobs(monkeypatch, tmp_path, program, "a", "b", "c")
    failed = repro.work_off(three, 2, lambda job: None)
    assert [job.run.network for job in failed] == ["b"]
    assert failed[0].last == "error: no such thing"
    assert sorted(Path("runs.txt").read_text().split()) == [
        f"train@d-{network}-r-0" for network in "abc"
    ]


def test_a_job_that_cannot_be_worked_off_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk, or where DVC is not there: nobody waits for ever."""
    two = jobs(monkeypatch, tmp_path, "print('d-b-r-0: top-1 50.0%')", "a", "b")
    two[0].log = tmp_path  # a folder cannot be written to
    assert repro.work_off(two, 1, lambda job: None) == two[:1]
    assert two[0].last.startswith("error: [Errno 21] Is a directory")
    assert two[1].last == "d-b-r-0: top-1 50.0%"


def test_stopping_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys, time\ntry: time.sleep(60)\n"
        "except KeyboardInterrupt: open(sys.argv[3], 'w').close(); sys.exit(1)"
    )
    three = jobs(monkeypatch, tmp_path, program, "a", "b", "c")

    class Stopped(repro.SimpleQueue):  # type: ignore[type-arg, misc]
        """Ctrl-C, once two are under way."""

        def get(self, *_: object) -> object:
            while sum(job.process is not None for job in three) < 2:
                repro.time.sleep(0.05)
            repro.time.sleep(1)  # until they sleep, too
            raise KeyboardInterrupt

    monkeypatch.setattr(repro, "SimpleQueue", Stopped)
    with pytest.raises(KeyboardInterrupt):
        repro.work_off(three, 2, lambda job: None)
    assert sorted(path.name for path in tmp_path.glob("train@*")) == [
        "train@d-a-r-0",
        "train@d-b-r-0",
    ]
    assert three[2].process is None


@pytest.mark.parametrize(
    ("number", "text"), [(0.4, "a minute"), (1.4, "a minute"), (27.6, "28 minutes")]
)
def test_minutes(number: float, text: str) -> None:
    assert repro.minutes(number) == text
