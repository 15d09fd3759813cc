"""What Ray Tune tells of a search's trials -> MLflow and the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipeline import trials
from pipeline.tracking import TrackedSearch


class Recorder(Callback):
    """One for each process: a search that goes on is recorded by the process that goes on."""

    current: ClassVar[Recorder]

    def __init__(self, tracked: TrackedSearch, number: int, epochs: int, maximise: str) -> None:
        """`number` of trials, of so many epochs each."""
        Recorder.current = self
        self.tracked, self.number, self.epochs, self.maximise = tracked, number, epochs, maximise
        self.begun = time.monotonic()
        self.ended = 0
        console = Console()
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[report]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.bars: dict[int, Any] = {}

    def __reduce__(self) -> tuple[Callable[[], Recorder], tuple[()]]:
        # Ray Tune saves callbacks with the state of a search.
        return _current, ()

    def setup(self, *_: Any, **__: Any) -> None:
        self.progress.start()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        number = trials.index(trial) + 1
        self.tracked.begun(number, trial.config)
        if number not in self.bars:
            self.bars[number] = self.progress.add_task(
                f"trial {number} of {self.number}", total=self.epochs, report="starting"
            )

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        number = trials.index(trial) + 1
        self.tracked.epoch_of(number, result)
        self.progress.update(
            self.bars[number],
            completed=result["epoch"],
            report=f"{self.maximise} {result[self.maximise]:.1%}",
        )

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        self._end(trials, trial, None)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._end(trials, trial, trial.get_error())

    def on_experiment_end(self, *_: Any, **__: Any) -> None:
        self.progress.stop()

    def _end(self, all_trials: list[Trial], trial: Trial, error: Exception | None) -> None:
        number = all_trials.index(trial) + 1
        line = trials.line(number, trial.config, trial.last_result, error, self.epochs)
        self.tracked.ended(number, line["state"], line["error"])
        self.ended += 1
        gone = sum(one.is_finished() for one in all_trials)
        left = (time.monotonic() - self.begun) / self.ended * (self.number - gone) / 60
        result = line["error"] or f"{self.maximise} {line[self.maximise]:.1%}"
        self.progress.console.print(
            f"trial {number} of {self.number}: {trials.told(trial.config)}: {line['state']}, "
            f"{result} ({gone} ended; about {left:.0f} minutes left)",
            highlight=False,
            soft_wrap=True,
        )
        if number in self.bars:
            self.progress.remove_task(self.bars.pop(number))


def _current() -> Recorder:
    return Recorder.current
