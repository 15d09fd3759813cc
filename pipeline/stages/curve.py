"""Scores over a number, such as Figure 7 -> results/figures/<name>.svg, and its cells as CSV.

python -m pipeline.stages.curve figure7
"""

from __future__ import annotations

import pandas as pd

from ianet import drawing
from ianet.escapes import to_csv
from ianet.files import write_whole
from pipeline.config.experiments import Curve
from pipeline.plan.dvc_yaml import FIGURES, TABLES
from pipeline.plan.plan import load_plan
from pipeline.report.cells import compute_cells, read_results
from pipeline.shell import command, parser


def draw_curve(curve: Curve, frame: pd.DataFrame) -> str:
    """The curve as SVG, from the cells of its rows."""
    numbers = dict(zip((row.label for row in curve.rows), curve.at, strict=True))
    frame = frame.assign(number=frame.label.map(numbers))
    frame = frame[frame.ours.notna()]
    panels: dict[str, dict[str, drawing.Band]] = {}
    levels: dict[str, dict[str, dict[str, float]]] = {}
    for metric in curve.metrics:
        panels[metric], levels[metric] = {}, {}
        for dataset, contents in frame[frame.metric == metric].groupby("dataset", sort=False):
            points = contents[contents.number.notna()].sort_values("number")
            panels[metric][str(dataset)] = drawing.Band(
                points.number.tolist(),
                points.ours.tolist(),
                points.low.tolist(),
                points.high.tolist(),
            )
            level = contents[contents.number.isna()]
            levels[metric][str(dataset)] = dict(zip(level.label, level.ours, strict=True))
    return drawing.svg(drawing.sensitivity(panels, levels, curve.axis))


def main() -> None:
    options = parser(__doc__, "pipeline.stages.curve")
    options.add_argument("name", help="of a file in experiments/")
    name = options.parse_args().name
    plan = load_plan()
    curve = plan.experiment(name, Curve)
    frame = compute_cells(curve, plan, read_results(name, curve, plan))
    write_whole(TABLES / f"{name}.csv", to_csv(frame, "%.4g"))
    write_whole(FIGURES / f"{name}.svg", draw_curve(curve, frame))
    print(f"{FIGURES / name}.svg: {curve.title}")


if __name__ == "__main__":
    command(main)
