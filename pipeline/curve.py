"""Scores over a number, such as Figure 7 -> results/figures/<name>.svg, and its cells as CSV.

python -m pipeline.curve figure7
"""

from __future__ import annotations

import argparse

import pandas as pd

from ianet import drawing
from pipeline.experiments import Curve
from pipeline.plan import FIGURES, TABLES, load_plan
from pipeline.shell import stage, write_whole
from pipeline.table import cells, read


def drawn(curve: Curve, frame: pd.DataFrame) -> str:
    """The curve as SVG, from the cells of its rows."""
    at = dict(zip((row.label for row in curve.rows), curve.at, strict=True))
    frame = frame.assign(at=frame.label.map(at))
    run = frame[frame.ours.notna()]
    panels: dict[str, dict[str, tuple[list[float], list[float], list[float]]]] = {}
    levels: dict[str, dict[str, dict[str, float]]] = {}
    for metric in curve.metrics:
        panels[metric], levels[metric] = {}, {}
        for dataset, own in run[run.metric == metric].groupby("dataset", sort=False):
            points = own[own["at"].notna()].sort_values("at")
            panels[metric][str(dataset)] = (
                points["at"].tolist(),
                points.ours.tolist(),
                points.spread.tolist(),
            )
            level = own[own["at"].isna()]
            levels[metric][str(dataset)] = dict(zip(level.label, level.ours, strict=True))
    return drawing.svg(drawing.sensitivity(panels, levels, curve.axis, curve.title))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.curve", description=__doc__)
    parser.add_argument("name", help="of a file in experiments/")
    name = parser.parse_args().name
    plan = load_plan()
    curve = plan.sheet(name, Curve)
    frame = cells(curve, plan, read(name, curve, plan))
    write_whole(TABLES / f"{name}.csv", frame.to_csv(index=False, float_format="%.4g"))
    write_whole(FIGURES / f"{name}.svg", drawn(curve, frame))
    print(f"{FIGURES / name}.svg: {curve.title}")


if __name__ == "__main__":
    with stage():
        main()
