"""What each network costs -> results/tables/<name>.csv, .md, .tex and .html.

    python -m pipeline.stages.cost cost

The table shows parameters and multiply-adds as the paper's recipe has them, beside the paper's
numbers.
"""

from __future__ import annotations

from pipeline.config.experiments import CostTable
from pipeline.plan.dvc_yaml import TABLES
from pipeline.plan.plan import load_plan
from pipeline.report import page
from pipeline.report.costs import build_section, count_costs
from pipeline.shell import command, parser


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
