"""What Ray Tune tells of a search's trials -> MLflow and the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console
from rich.progress import TaskID

from pipeline import cluster, display, trials
from pipeline.tracking import TrackedSearch

LOOK = 10  # seconds between two looks for what stopped trials left behind


class Event(NamedTuple):
    """Of a trial: it begins, or goes on; it has done an epoch; it has ended, as `state` says."""

    trial: str
    values: dict[str, Any]  # of `space.drawn`
    last: dict[str, Any] | None  # report of its last epoch; None where it begins
    state: str | None  # of `trials`
    gone: int  # trials that have ended


class Teller(Callback):
    """Hands on what happens to trials, from the process of Ray Tune; there it also frees what they
    left behind. One for each process: a search that goes on is told by the process that goes on.
    """

    current: ClassVar[Teller]

    def __init__(self, epochs: int, tell: Callable[[Event], None]) -> None:
        """`epochs` of a whole trial; `tell` is handed each event."""
        Teller.current = self
        self.epochs, self.tell = epochs, tell
        self.stopped = False  # whether a trial was, early
        self.looked = time.monotonic()
        self.orphans: set[str] = set()

    def __reduce__(self) -> tuple[Callable[[], Teller], tuple[()]]:
        # Ray Tune saves callbacks with the state of a search.
        return _current, ()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._tell(trials, trial, None)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._tell(trials, trial, result)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        self._end(trials, trial, failed=False)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._end(trials, trial, failed=True)  # why, Tune knows at the end of the search

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if self.stopped and time.monotonic() - self.looked > LOOK:
            self.looked = time.monotonic()
            self.orphans = cluster.free_orphans(self.orphans)

    def _end(self, every: list[Trial], trial: Trial, *, failed: bool) -> None:
        last = trial.last_result or {}
        state = trials.state(last, self.epochs, failed=failed)
        self.stopped |= state == trials.STOPPED
        self._tell(every, trial, last, state)

    def _tell(
        self,
        every: list[Trial],
        trial: Trial,
        last: dict[str, Any] | None,
        state: str | None = None,
    ) -> None:
        # One that ends is counted, whether or not Tune has noted so.
        gone = sum(one.is_finished() for one in every if one is not trial) + (state is not None)
        self.tell(Event(trial.trial_id, trial.config, last, state, gone))


def _current() -> Teller:
    return Teller.current


class Recorder:
    """Writes the events of a search to MLflow and the terminal, in the process that leads it."""

    def __init__(
        self,
        tracked: TrackedSearch,
        number: int,
        epochs: int,
        maximise: str,
        reports: Callable[[str], list[dict[str, float]]],
    ) -> None:
        """`number` of trials, of so many epochs each; `reports` is what one told before a kill."""
        self.tracked, self.number, self.epochs, self.maximise = tracked, number, epochs, maximise
        self.reports = reports
        self.begun = time.monotonic()
        self.ended = 0
        self.progress = display.bars(Console())
        self.bars: dict[str, TaskID] = {}

    def take(self, event: Event) -> None:
        """Write one."""
        if event.state is not None:
            self._end(event, event.state)
        elif event.last is None:
            self._begin(event)
        else:
            self._epoch(event.trial, event.last)

    def _begin(self, event: Event) -> None:
        self.tracked.begun(event.trial, event.values, self.reports(event.trial))
        if event.trial not in self.bars:
            self.bars[event.trial] = self.progress.add_task(
                f"trial {event.trial}", total=self.epochs, report="starting"
            )

    def _epoch(self, trial: str, report: dict[str, Any]) -> None:
        self.tracked.epoch_of(trial, report)
        self.progress.update(
            self.bars[trial],
            completed=report["epoch"],
            report=f"{self.maximise} {report[self.maximise]:.1%}",
        )

    def _end(self, event: Event, state: str) -> None:
        if event.trial not in self.bars:  # it failed before it started
            self.tracked.begun(event.trial, event.values, [])
        failed = state == trials.FAILED
        self.tracked.ended(event.trial, state, failed=failed)
        self.ended += 1
        left = (time.monotonic() - self.begun) / self.ended * (self.number - event.gone) / 60
        last = event.last or {}
        score = "" if failed else f", {self.maximise} {last[self.maximise]:.1%}"
        self.progress.console.print(
            f"trial {event.trial}: {trials.told(event.values)}: {state}{score} "
            f"({event.gone} of {self.number} ended; {left:.0f} minutes left)",
            highlight=False,
            soft_wrap=True,
        )
        if event.trial in self.bars:
            self.progress.remove_task(self.bars.pop(event.trial))
