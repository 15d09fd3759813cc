"""A table of experiments/ -> results/tables/<name>.csv, .md, .tex, .html and .svg.

    python -m pipeline.stages.table table4f

The table shows ours beside the paper's, see `pipeline.report.cells`, and the picture the gains with
their intervals. A new look is a change of `pipeline.report.page`.
"""

from __future__ import annotations

from pipeline.config.experiments import Table
from pipeline.plan.dvc_yaml import TABLES
from pipeline.plan.plan import load_plan
from pipeline.report import page
from pipeline.report.cells import build_section, read_results
from pipeline.shell import command, parser


def main() -> None:
    options = parser(__doc__, "pipeline.stages.table")
    options.add_argument("name", help="of a file in experiments/")
    name = options.parse_args().name
    plan = load_plan()
    table = plan.experiment(name, Table)
    frame, section = build_section(name, table, plan, read_results(name, table, plan))
    page.write(section, TABLES, frame)
    for panel in section.panels:
        if any(row.is_run for row in panel.rows):
            print(f"{section.title}, {panel.dataset}\n{page.to_markdown_table(panel)}")


if __name__ == "__main__":
    command(main)
