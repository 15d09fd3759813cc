"""What each network costs -> results/tables/<name>.csv, .md, .tex and .html.

    python -m pipeline.stages.cost cost

The table shows parameters and multiply-adds as the paper's recipe has them, beside the paper's
numbers.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from ianet.cost import count_multiply_adds, count_parameters
from ianet.network import Network
from pipeline.config.experiments import CostTable
from pipeline.config.settings import Settings, build_network
from pipeline.plan.dvc_yaml import TABLES
from pipeline.plan.plan import load_plan
from pipeline.report import page
from pipeline.report.costs import build_section
from pipeline.shell import command, parser

IDENTITIES = 751  # of Market-1501, for a classifier of a usual size, which no cost counts


def count_costs(table: CostTable, settings: Settings) -> pd.DataFrame:
    """A row for each network.

    Returns:
        label; parameters, in millions; multiply_adds of one image, in billions; more, how many
        multiply-adds the first row lacks; and paper, what the paper prints.
    """
    recipe = settings.recipes[table.recipe]
    rows: list[dict[str, Any]] = []
    for row in table.rows:
        options = {**settings.networks[row.network], "weights": "none"}
        network = Network(IDENTITIES, build_network(row.network, options, recipe))
        size = recipe.training["height"], recipe.training["width"]
        operations = count_multiply_adds(network, *size) / 1e9
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


def main() -> None:
    options = parser(__doc__, "pipeline.stages.cost")
    options.add_argument("name", help="of a file in experiments/")
    name = options.parse_args().name
    plan = load_plan()
    table = plan.experiment(name, CostTable)
    frame = count_costs(table, plan.settings)
    page.write(build_section(name, table, frame), TABLES, frame)


if __name__ == "__main__":
    command(main)
