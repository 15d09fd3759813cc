"""Training curves of the runs on the page, by data set and recipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from ianet import drawing
from pipeline.report.run_list import TrainedRun

QUANTITIES = {"training loss": ("loss", 1), "training accuracy (%)": ("accuracy", 100)}
"""Title to the column of a history, and to its factor."""


class RunCurves(NamedTuple):
    """The curves of the runs on a data set by a recipe.

    Attributes:
        total: number of the runs.
        pictures: title to SVG.
    """

    dataset: str
    recipe: str
    total: int
    pictures: dict[str, str]


def draw_curves(trained_runs: Sequence[TrainedRun]) -> list[RunCurves]:
    """Loss and accuracy by epoch: a panel for each network, a line for each seed."""
    groups: dict[tuple[str, str], list[TrainedRun]] = {}
    for each in trained_runs:
        groups.setdefault((each.run.dataset, each.run.recipe), []).append(each)
    return [
        RunCurves(
            dataset,
            recipe,
            len(group),
            {
                title: drawing.svg(
                    drawing.draw_training_curves(_join(group, column, factor), title)
                )
                for title, (column, factor) in QUANTITIES.items()
            },
        )
        for (dataset, recipe), group in groups.items()
    ]


def _join(group: Sequence[TrainedRun], column: str, factor: int) -> dict[str, dict[str, pd.Series]]:
    """Network to seed to the values of a column."""
    panels: dict[str, dict[str, pd.Series]] = {}
    for run, history, *_ in group:
        values = factor * history.set_index("epoch")[column]
        panels.setdefault(run.network, {})[f"seed {run.seed}"] = values
    return panels
