"""The progress of a search in a terminal, or lines where there is none."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import TaskID

from pipeline.search.results import FAILED
from pipeline.shell import format_minutes
from pipeline.training.display import build_progress_bars, estimate_seconds

log = logging.getLogger(__name__)


class SearchDisplay:
    """Which trials run, their epochs and scores, how many ended, and the time left."""

    def __init__(self, number: int, epochs: int, maximise: str) -> None:
        """A search of so many trials, of so many epochs each, by a score."""
        self.number, self.epochs, self.maximise = number, epochs, maximise
        self.start = time.monotonic()
        self.console = Console(stderr=True)
        self.progress = build_progress_bars(self.console)
        self.bars: dict[str, TaskID] = {}
        self.seen: dict[str, int] = {}  # epochs of each trial
        self.ended: dict[str, str] = {}  # states of trials
        self.warnings: dict[str, str] = {}  # of trials that began anew
        self.before = 0  # trials that had ended when this command began

    def __enter__(self) -> SearchDisplay:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, trials: Sequence[dict[str, Any]]) -> None:
        """Show what is new."""
        if not self.seen and trials:
            self.before = sum(trial["state"] is not None for trial in trials)
            self.ended = {t["trial"]: t["state"] for t in trials if t["state"] is not None}
            self.seen = {t["trial"]: len(t["history"]) for t in trials}
            self.warnings = {t["trial"]: t["warning"] for t in trials}
        for trial in trials:
            name, history = trial["trial"], trial["history"]
            if trial["state"] is None and name not in self.bars:
                self.bars[name] = self.progress.add_task(name, total=self.epochs, report="starts")
                log.debug("trial %s starts", name)
            if trial["warning"] != self.warnings.get(name, ""):
                self.warnings[name] = trial["warning"]
                self._print(f"trial {name}: {trial['warning']}")
            if len(history) > self.seen.get(name, 0):
                self.seen[name] = len(history)
                self._show_epoch(name, history[-1])
            if trial["state"] is not None and name not in self.ended:
                self.ended[name] = trial["state"]
                self._show_end(trial)

    def _show_epoch(self, name: str, report: dict[str, Any]) -> None:
        score = f"{self.maximise} {report[self.maximise]:.1%}"
        if name in self.bars:
            self.progress.update(self.bars[name], completed=report["epoch"], report=score)
        if not self.console.is_terminal:
            log.info("trial %s: epoch %d of %d, %s", name, report["epoch"], self.epochs, score)

    def _show_end(self, trial: dict[str, Any]) -> None:
        name, state = trial["trial"], trial["state"]
        if name in self.bars:
            self.progress.remove_task(self.bars.pop(name))
        done = len(self.ended)
        seconds = time.monotonic() - self.start
        left = estimate_seconds(seconds, done - self.before, done, self.number) / 60
        score = ""
        if state != FAILED and trial["history"]:
            score = f", {self.maximise} {trial['history'][-1][self.maximise]:.1%}"
        text = f"trial {name}: {state}{score} ({done} of {self.number} ended"
        text += f"; about {format_minutes(left)} left)" if done < self.number else ")"
        self._print(text)
        if trial["traceback"]:
            self._print(trial["traceback"].rstrip())

    def _print(self, text: str) -> None:
        if self.console.is_terminal:
            self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            log.info("%s", text)
