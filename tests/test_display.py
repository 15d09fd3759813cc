"""What a training and a search show of their progress, above all the time that is left."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pipeline.plan.runs import Run
from pipeline.search import display as search_display
from pipeline.search.display import SearchDisplay
from pipeline.search.results import DONE, FAILED, STOPPED
from pipeline.training.display import Display, estimate_seconds

RUNS = [Run("d", network, "r", 0) for network in "abc"]


@pytest.fixture(autouse=True)
def terminal(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal, wherever the tests run. The lines of the log count."""
    monkeypatch.setattr(Console, "is_terminal", False)
    caplog.set_level(logging.INFO, "pipeline")


@pytest.mark.parametrize(
    ("seconds", "steps", "done", "total", "expected"),
    [
        (40, 2, 2, 5, 60),
        (30, 1, 3, 5, 60),  # an earlier command did two
        (100, 4, 4, 4, 0),
        (5, 2, 8, 12, 10),
    ],
)
def test_the_time_left_is_of_what_is_not_done(
    seconds: float, steps: int, done: int, total: int, expected: float
) -> None:
    assert estimate_seconds(seconds, steps, done, total) == expected


def report(epoch: int, seconds: float) -> dict[str, Any]:
    return {"epoch": epoch, "loss": 1.23456, "images_per_second": 87.6, "seconds": seconds}


def test_a_training_shows_each_epoch(caplog: pytest.LogCaptureFixture) -> None:
    """Epochs of 40 and 50 s: 45 s each for the three that are left."""
    with Display(RUNS[1], RUNS, epochs=5) as display:
        display.show_epoch(report(1, 40.0))
        display.show_part(1.5)
        [task] = display.progress.tasks
        assert (task.completed, task.total) == (1.5, 5)
        display.show_epoch(report(2, 50.0))
        assert task.completed == 2
        assert task.fields["report"] == "epoch 2/5  loss 1.235  88 images/s  2:15 left"
    assert caplog.messages == [
        "run 2 of 3: d.b.r.0, 5 epochs",
        "  epoch 1/5  loss 1.235  88 images/s  2:40 left",
        "  epoch 2/5  loss 1.235  88 images/s  2:15 left",
    ]


def test_a_training_that_resumes_counts_its_own_seconds(caplog: pytest.LogCaptureFixture) -> None:
    with Display(Run("d", "other", "r", 0), RUNS, epochs=60) as display:
        display.show_epoch(report(58, 30.5))
        display.show_epoch(report(59, 31.5))
        display.show_epoch(report(60, 28.0))
    assert caplog.messages == [
        "run: d.other.r.0, 60 epochs",
        "  epoch 58/60  loss 1.235  88 images/s  1:01 left",
        "  epoch 59/60  loss 1.235  88 images/s  0:31 left",
        "  epoch 60/60  loss 1.235  88 images/s  0:00 left",
    ]


def trial(name: str, state: str | None, *scores: float, **texts: str) -> dict[str, Any]:
    history = [{"epoch": epoch, "mAP": score} for epoch, score in enumerate(scores, 1)]
    texts = {"traceback": "", "warning": "", **texts}
    return {"trial": name, "state": state, "history": history, **texts}


def test_a_search_shows_each_trial_that_ends(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of ten trials ended before this command. Three more end, 4 minutes each."""
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(search_display, "time", clock)
    before = [trial("1", DONE, 0.1, 0.2), trial("2", FAILED)]
    with SearchDisplay(10, 2, "mAP") as display:
        display.show([*before, trial("3", None, 0.25)])
        clock.now += 240
        display.show([*before, trial("3", DONE, 0.25, 0.5), trial("4", None)])
        clock.now += 240
        after = [*before, trial("3", DONE, 0.25, 0.5)]
        display.show([*after, trial("4", FAILED), trial("5", None)])
        assert list(display.bars) == ["5"]
        display.show([*after, trial("4", FAILED), trial("5", None)])
        ends = [trial(str(number), DONE, 0.5, 0.625) for number in range(5, 11)]
        clock.now += 240
        display.show([*after, trial("4", FAILED), ends[0]])
        display.show([*after, trial("4", FAILED), *ends])
    assert caplog.messages[:5] == [
        "trial 3: epoch 2 of 2, mAP 50.0%",
        "trial 3: done, mAP 50.0% (3 of 10 ended; about 28 minutes left)",
        "trial 4: failed (4 of 10 ended; about 24 minutes left)",
        "trial 5: epoch 2 of 2, mAP 62.5%",
        "trial 5: done, mAP 62.5% (5 of 10 ended; about 20 minutes left)",
    ]
    assert caplog.messages[-1] == "trial 10: done, mAP 62.5% (10 of 10 ended)"


def test_a_search_shows_tracebacks_and_why_a_trial_began_anew(
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each once, as it is; those of a command before this one are known."""
    known = [trial("1", FAILED, traceback="old"), trial("2", None, 0.25, warning="old")]
    text = "Traceback:\n  x[red], y[1, 2]\nIndexError: wrong axis\n"
    warning = "begins anew, as its checkpoint is gone or damaged: bad [red]"
    shown = [
        [*known, trial("3", None, 0.25)],
        [*known, trial("3", None, 0.25, warning=warning)],
        2 * [*known, trial("3", FAILED, 0.25, warning=warning, traceback=text)],
    ]
    lines = [f"trial 3: {warning}", "trial 3: failed (2 of 3 ended; about ", text.rstrip()]
    for is_terminal in (False, True):
        monkeypatch.setattr(Console, "is_terminal", is_terminal)
        with SearchDisplay(3, 2, "mAP") as display:
            for trials in shown:
                display.show(trials)
    assert [line.startswith(start) for line, start in zip(caplog.messages, lines, strict=True)] == (
        [True] * 3
    )
    written = capsys.readouterr().err
    assert [written.count(line) for line in lines] == [1] * 3
    assert "old" not in written


def test_a_terminal_shows_the_same_lines(
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "200")
    with Display(RUNS[0], RUNS, epochs=5) as display:
        display.show_epoch(report(2, 50.0))
    assert "epoch 2/5  loss 1.235  88 images/s  2:30 left" in capsys.readouterr().err
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(search_display, "time", clock)
    with SearchDisplay(4, 2, "mAP") as search:
        search.show([trial("1", None, 0.25)])
        clock.now = 600.0
        search.show([trial("1", STOPPED, 0.25)])
    line = "trial 1: stopped early, mAP 25.0% (1 of 4 ended; about 30 minutes left)"
    assert line in capsys.readouterr().err
    assert caplog.messages == []
