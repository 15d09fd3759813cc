"""The progress of one training in a terminal, or a line an epoch where there is none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pipeline.plan.runs import Run

log = logging.getLogger(__name__)


def build_progress_bars(console: Console) -> Progress:
    """Bars with a text of their own, the field `report`; none where there is no terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[report]}"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def estimate_seconds(seconds: float, steps: int, done: int, total: int) -> float:
    """The seconds until all steps are done, by the mean of the steps of this command.

    Args:
        seconds: that the steps of this command took.
        steps: of this command.
        done: steps of this command and of earlier ones.
        total: steps in all.
    """
    return seconds / steps * (total - done)


class Display:
    """Which run of how many, epoch, loss, images/s and time left."""

    def __init__(self, run: Run, runs: Sequence[Run], epochs: int) -> None:
        place = f"run {runs.index(run) + 1} of {len(runs)}" if run in runs else "run"
        self.title = f"{place}: {run.key}"
        self.epochs = epochs
        self.seconds: list[float] = []
        self.console = Console(stderr=True)
        self.progress = build_progress_bars(self.console)
        self.task = self.progress.add_task(self.title, total=epochs, report="starting Ray")

    def __enter__(self) -> Display:
        self.progress.start()
        if not self.console.is_terminal:
            log.info("%s, %d epochs", self.title, self.epochs)
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show_part(self, epochs: float) -> None:
        """Show how many epochs are done, with the part of the one that is not."""
        self.progress.update(self.task, completed=epochs)

    def show_epoch(self, report: dict[str, Any]) -> None:
        """Show that an epoch is done."""
        done = int(report["epoch"])
        self.seconds.append(report["seconds"])
        left = round(estimate_seconds(sum(self.seconds), len(self.seconds), done, self.epochs))
        text = (
            f"epoch {done}/{self.epochs}  loss {report['loss']:.3f}  "
            f"{report['images_per_second']:.0f} images/s  {left // 60}:{left % 60:02} left"
        )
        self.progress.update(self.task, completed=done, report=text)
        if not self.console.is_terminal:
            log.info("  %s", text)
