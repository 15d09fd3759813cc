"""A table of costs: parameters and multiply-adds of networks.

Speeds are no results: they belong to a machine and its load. `benchmarks/` measures them.
"""

from __future__ import annotations

import pandas as pd

from pipeline.config.experiments import CostTable
from pipeline.report.page import DASH, Cell, Panel, Section, TableRow

FORMATS = {
    "parameters": ("parameters, M", "{:.2f}"),
    "multiply_adds": ("multiply-adds, G", "{:.3f}"),
    "more": ("more than base., G", "{:+z.3f}"),
    "paper": ("paper's, G", "{:.2f}"),
}
"""Column to title and format."""


def build_panel(frame: pd.DataFrame) -> Panel:
    """The costs as people read them."""
    rows = [
        TableRow(
            "",
            row["label"],
            [
                Cell(DASH if pd.isna(row[name]) else form.format(row[name]))
                for name, (_, form) in FORMATS.items()
            ],
        )
        for _, row in frame.iterrows()
    ]
    return Panel("", [title for title, _ in FORMATS.values()], rows)


def build_section(name: str, table: CostTable, frame: pd.DataFrame) -> Section:
    """The costs as a page shows them.

    Args:
        name: of the table.
        table: what the experiment asks for.
        frame: see `pipeline.stages.cost.count_costs`.
    """
    note = (
        f"Counted for the backbone and the size of the recipe {table.recipe}. {DASH} is not in the "
        "paper."
    )
    return Section(name, table.title, table.caption, [build_panel(frame)], note)
