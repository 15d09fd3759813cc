"""A figure of relation maps -> results/figures/<name>.svg.

    python -m pipeline.stages.figure figure8
    python -m pipeline.stages.figure figure4 --run market1501.stage23.cpu.0 --to build/figure4.svg

The first command shows synthetic people and the synthetic run of the figure's network. The second
command shows another trained run, on the photographs that the figure names for its data set.
"""

from __future__ import annotations

from pathlib import Path

from ianet.files import write_whole
from pipeline.config.experiments import RelationFigure
from pipeline.config.settings import SettingsError
from pipeline.plan.dvc_yaml import FIGURES
from pipeline.plan.plan import Plan, load_plan
from pipeline.plan.runs import Run, parse_run
from pipeline.report.relation_maps import draw_figure
from pipeline.shell import command, parser


def find_default_run(figure: RelationFigure, plan: Plan) -> Run:
    """The run of the pipeline's own figure.

    Raises:
        SettingsError: there is none.
    """
    runs = plan.shown_runs(figure)
    if not runs:
        raise SettingsError(
            f"{figure.title} shows synthetic people as {figure.network} sees them, and no run of "
            f"{figure.network} is at hand: give --run and --to"
        )
    return runs[0]


def main() -> None:
    options = parser(__doc__, "pipeline.stages.figure")
    options.add_argument("name", help="of a file in experiments/")
    options.add_argument("--run", metavar="KEY", help="another trained run")
    options.add_argument("--to", type=Path, metavar="FILE", help="the file for its figure")
    arguments = options.parse_args()
    if (arguments.run is None) != (arguments.to is None):
        raise SettingsError("--run and --to go together: results/figures has the default run only")
    plan = load_plan()
    figure = plan.file(arguments.name, RelationFigure)
    if arguments.run is None:
        run, target = find_default_run(figure, plan), FIGURES / f"{arguments.name}.svg"
    else:
        run, target = parse_run(arguments.run, plan.settings), arguments.to
    write_whole(target, draw_figure(figure, run, plan.settings))
    print(f"{target}: {figure.title} of {run.key}")


if __name__ == "__main__":
    command(main)
