"""Ranked lists of networks -> results/ranks/<name>.html, which the report shows.

python -m pipeline.stages.ranks ranks
"""

from __future__ import annotations

from ianet.files import write_whole
from pipeline.config.experiments import RankedLists
from pipeline.plan.dvc_yaml import RANKS
from pipeline.plan.plan import load_plan
from pipeline.report.ranked_lists import build_fragment
from pipeline.shell import command, parser


def main() -> None:
    options = parser(__doc__, "pipeline.stages.ranks")
    options.add_argument("name", help="of a file in experiments/")
    name = options.parse_args().name
    plan = load_plan()
    lists = plan.experiment(name, RankedLists)
    RANKS.mkdir(parents=True, exist_ok=True)
    target = RANKS / f"{name}.html"
    write_whole(target, build_fragment(lists, plan.shown_runs(lists), plan.settings))
    print(f"{target}: {lists.title}")


if __name__ == "__main__":
    command(main)
