"""The lines of a table of blocks: what each inserted block of trained networks does."""

from __future__ import annotations

from math import nan
from typing import Any

import pandas as pd

from pipeline.config.experiments import BlockTable
from pipeline.plan.plan import Plan
from pipeline.plan.records import read_scores
from pipeline.report.page import DASH, Cell, Panel, Section, TableRow

FORMATS = {
    "residual_ratio": ("added, % of the input", "{:.2f}", 100),
    "scale": ("scale of BatchNorm", "{:.4f}", 1),
    "entropy": ("entropy of the relation", "{:.5f}", 1),
}
"""Column to title, format and factor."""


def measure_blocks(table: BlockTable, plan: Plan) -> pd.DataFrame:
    """A row for each block of each network, of the files of scores.

    Returns:
        dataset; label; block; the metrics of the table in percent; and what
        `ianet.diagnostics.BlockDescription` has; all as means over the seeds; seeds, their number.
    """
    rows: list[dict[str, Any]] = []
    for row, evaluations in plan.rows(table):
        for evaluation in evaluations:
            scores = read_scores(evaluation)
            means = {name: nan if scores[name] is None else scores[name] for name in table.metrics}
            rows += [
                {
                    "dataset": evaluation.on,
                    "label": row.label,
                    "block": block["name"].removeprefix("blocks."),
                    **{name: 100 * value for name, value in means.items()},
                    **{name: block[name] for name in FORMATS},
                    "seeds": 1,
                }
                for block in scores["blocks"]
            ]
    keys = ["dataset", "label", "block"]
    numbers = [*table.metrics, *FORMATS]
    frame = pd.DataFrame(rows, columns=[*keys, *numbers, "seeds"])
    frame = frame.astype(dict.fromkeys(numbers, float))
    means_and_sum = {**dict.fromkeys(numbers, "mean"), "seeds": "sum"}
    return frame.groupby(keys, sort=False).agg(means_and_sum).reset_index()


def build_section(name: str, table: BlockTable, frame: pd.DataFrame) -> Section:
    """The blocks as a page shows them, a panel for each data set.

    Args:
        name: of the table.
        table: what the experiment asks for.
        frame: see `measure_blocks`.
    """
    titles = [*table.metrics, *(title for title, *_ in FORMATS.values()), "seeds"]
    panels = [
        Panel(str(dataset), titles, [_build_row(line, table) for line in lines.to_dict("records")])
        for dataset, lines in frame.groupby("dataset", sort=False)
    ]
    note = (
        "Means over the seeds, in 16 query images. Added: root mean square of what a block adds to "
        "its input. Scale: mean absolute scale of the BatchNorm that ends the block, 0 at the "
        "start of a training. Entropy: of the rows of the relation, 1 where a row gathers all "
        f"alike. {DASH}: the block has no such number."
    )
    return Section(name, table.title, table.caption, panels, note)


def _build_row(line: dict[Any, Any], table: BlockTable) -> TableRow:
    cells = [Cell(_format(line[metric], "{:.1f}", 1), "ours") for metric in table.metrics]
    cells += [
        Cell(_format(line[name], form, factor)) for name, (_, form, factor) in FORMATS.items()
    ]
    return TableRow(line["label"], line["block"], [*cells, Cell(str(line["seeds"]))])


def _format(value: float, form: str, factor: float) -> str:
    return DASH if pd.isna(value) else form.format(factor * value)
