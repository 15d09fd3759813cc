"""What the blocks of trained networks do -> results/tables/<name>.csv, .md, .tex and .html.

python -m pipeline.stages.blocks blocks
"""

from __future__ import annotations

from pipeline.config.experiments import BlockTable
from pipeline.plan.dvc_yaml import TABLES
from pipeline.plan.plan import load_plan
from pipeline.report import page
from pipeline.report.blocks import build_section, measure_blocks
from pipeline.shell import command, parser


def main() -> None:
    options = parser(__doc__, "pipeline.stages.blocks")
    options.add_argument("name", help="of a file in experiments/")
    name = options.parse_args().name
    plan = load_plan()
    table = plan.experiment(name, BlockTable)
    frame = measure_blocks(table, plan)
    page.write(build_section(name, table, frame), TABLES, frame)


if __name__ == "__main__":
    command(main)
