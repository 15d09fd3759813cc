"""What Ray Tune tells of a search's trials -> MLflow and the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console
from rich.progress import TaskID

from pipeline import cluster, display, trials
from pipeline.tracking import TrackedSearch

LOOK = 10  # seconds between two looks for what stopped trials left behind


class Recorder(Callback):
    """One for each process: a search that goes on is recorded by the process that goes on."""

    current: ClassVar[Recorder]

    def __init__(
        self,
        tracked: TrackedSearch,
        number: int,
        epochs: int,
        maximise: str,
        reports: Callable[[str], list[dict[str, float]]],
    ) -> None:
        """`number` of trials, of so many epochs each; `reports` is what one told before a kill."""
        Recorder.current = self
        self.tracked, self.number, self.epochs, self.maximise = tracked, number, epochs, maximise
        self.reports = reports
        self.begun = time.monotonic()
        self.ended = 0
        self.stopped = False  # whether a trial was, early
        self.looked = self.begun
        self.orphans: set[str] = set()
        self.progress = display.bars(Console())
        self.bars: dict[str, TaskID] = {}

    def __reduce__(self) -> tuple[Callable[[], Recorder], tuple[()]]:
        # Ray Tune saves callbacks with the state of a search.
        return _current, ()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self.tracked.begun(trial.trial_id, trial.config, self.reports(trial.trial_id))
        if trial.trial_id not in self.bars:
            self.bars[trial.trial_id] = self.progress.add_task(
                f"trial {trial.trial_id}", total=self.epochs, report="starting"
            )

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self.tracked.epoch_of(trial.trial_id, result)
        self.progress.update(
            self.bars[trial.trial_id],
            completed=result["epoch"],
            report=f"{self.maximise} {result[self.maximise]:.1%}",
        )

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

    def _end(self, all_trials: list[Trial], trial: Trial, *, failed: bool) -> None:
        if trial.trial_id not in self.bars:  # it failed before it started
            self.tracked.begun(trial.trial_id, trial.config, [])
        last = trial.last_result or {}
        state = trials.state(last, self.epochs, failed=failed)
        self.tracked.ended(trial.trial_id, state, failed=failed)
        self.ended += 1
        self.stopped |= state == trials.STOPPED
        gone = 1 + sum(one.is_finished() for one in all_trials if one is not trial)
        left = (time.monotonic() - self.begun) / self.ended * (self.number - gone) / 60
        score = "" if failed else f", {self.maximise} {last[self.maximise]:.1%}"
        self.progress.console.print(
            f"trial {trial.trial_id}: {trials.told(trial.config)}: {state}{score} "
            f"({gone} of {self.number} ended; {left:.0f} minutes left)",
            highlight=False,
            soft_wrap=True,
        )
        if trial.trial_id in self.bars:
            self.progress.remove_task(self.bars.pop(trial.trial_id))


def _current() -> Recorder:
    return Recorder.current
