"""The cells of a table of costs: parameters and multiply-adds of networks.

Speeds are no results: they belong to a machine and its load. `benchmarks/` measures them.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from ianet.cost import count_multiply_adds, count_parameters
from ianet.network import Network
from pipeline.config.experiments import CostTable
from pipeline.config.settings import RecipeSettings, Settings, build_network
from pipeline.report.page import DASH, Cell, Panel, Section, TableRow

IDENTITIES = 751  # of Market-1501, for a classifier of a usual size
FORMATS = {
    "parameters": ("parameters, M", "{:.2f}"),
    "multiply_adds": ("multiply-adds, G", "{:.3f}"),
    "more": ("more than base., G", "{:+z.3f}"),
    "paper": ("paper's, G", "{:.2f}"),
}
"""Column to title and format."""


def build_untrained(name: str, recipe: RecipeSettings, settings: Settings) -> Network:
    """The network of that name, as the recipe trains it, without weights."""
    options = {**settings.networks[name], "weights": "none"}
    return Network(IDENTITIES, build_network(name, options, recipe))


def count_operations(network: Network, recipe: RecipeSettings) -> float:
    """Multiply-adds of an image of the recipe's size, in billions."""
    return count_multiply_adds(network, recipe.training["height"], recipe.training["width"]) / 1e9


def count_costs(table: CostTable, settings: Settings) -> pd.DataFrame:
    """A row for each network.

    Returns:
        label; parameters, in millions; multiply_adds of one image, in billions; more, how many
        multiply-adds the first row lacks; and paper, what the paper prints.
    """
    recipe = settings.recipes[table.recipe]
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        network = build_untrained(row.network, recipe, settings)
        operations = count_operations(network, recipe)
        parameters = count_parameters(network) - count_parameters(network.classifier)
        rows.append(
            {
                "label": row.label,
                "parameters": parameters / 1e6,
                "multiply_adds": operations,
                "more": operations - (rows[0]["multiply_adds"] if rows else operations),
                "paper": row.paper,
            }
        )
    return pd.DataFrame(rows).astype({"paper": float})


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
        frame: see `count_costs`.
    """
    note = (
        f"Counted for the backbone and the size of the recipe {table.recipe}. {DASH} is not in the "
        "paper."
    )
    return Section(name, table.title, table.caption, [build_panel(frame)], note)
