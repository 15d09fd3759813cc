"""results/report.html: every table and figure, curves, and what was run, on one page.

It needs nothing but itself, and links to the runs in MLflow; there, one run named
"reproduction" holds all tables and figures.
"""

from __future__ import annotations

import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ianet import drawing
from pipeline import cost, page, table, tracking
from pipeline.experiments import Costs, Curve, Portraits, Scored, Table
from pipeline.plan import (
    DESCRIPTION,
    FIGURES,
    PREPARED,
    REPORT,
    TABLES,
    Plan,
    Run,
    load_plan,
    runs_of,
)
from pipeline.settings import Settings
from pipeline.shell import stage, write_whole

RESULTS = Path("results")


class Picture(NamedTuple):
    name: str
    title: str
    caption: str
    svg: str


def inlined(svg: str) -> str:
    """A picture's element alone, without what only a file of its own may begin with."""
    return svg[svg.index("<svg") :]


def curves(name: str, sheet: Scored, plan: Plan) -> list[Picture]:
    """Training loss and CMC of a sheet's rows, a picture for each data set."""
    found: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for row, evaluations in plan.rows(sheet):
        for one in evaluations:
            label = f"{row.group}: {row.label}" if row.group else row.label
            lines = found.setdefault(one.on, {})
            if label not in lines:  # the first seed stands for all: curves are to be told apart
                loss = pd.read_csv(one.run.folder / "history.csv").loss.tolist()
                lines[label] = (loss, json.loads(one.scores.read_text())["cmc"])
    return [
        Picture(
            f"{name}-{dataset}",
            f"{sheet.title}, {dataset}",
            "Training loss and queries matched by rank, of the first seed.",
            inlined(drawing.svg(drawing.learning_curves(lines))),
        )
        for dataset, lines in found.items()
    ]


def overview(settings: Settings, runs: list[Run]) -> dict[str, str]:
    """What was run, on which data, with what."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    data = {
        f"Data set {name}": ", ".join(
            f"{number:,} {what}"
            for what, number in json.loads((PREPARED / name / DESCRIPTION).read_text())[
                "counts"
            ].items()
        )
        for name in settings.at_hand
    }
    recipes = {
        f"Recipe {name}": ", ".join(
            f"{option} {value}"
            for option, value in {
                **settings.recipes[name].network,
                **settings.recipes[name].training,
            }.items()
        )
        for name in dict.fromkeys(run.recipe for run in runs)
    }
    seeds = ", ".join(map(str, sorted({run.seed for run in runs})))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "ray"))
    return {
        "Runs": f"{len(runs)}, seeds {seeds}",
        **data,
        **recipes,
        "Code": f"commit {commit.stdout.strip() or 'unknown'}; Python {platform.python_version()}, "
        + packages,
    }


def recorded(run: Run, url: str | None) -> dict[str, Any]:
    """The line of a run."""
    history = pd.read_csv(run.folder / "history.csv")
    return {
        **run._asdict(),
        "key": run.key,
        "url": url,
        "epochs": len(history),
        "rate": history.images_per_second.mean(),
        "minutes": history.seconds.sum() / 60,
    }


def sections(plan: Plan) -> list[page.Section]:
    """Every table."""
    made = []
    for name, sheet in plan.sheets.items():
        if isinstance(sheet, Table):
            made.append(table.section(name, sheet, plan)[1])
        elif isinstance(sheet, Costs):
            made.append(cost.section(name, sheet, pd.read_csv(TABLES / f"{name}.csv")))
    return made


def figures(plan: Plan) -> list[Picture]:
    """Every figure; portraits have their caption in the picture."""
    made = []
    for name, sheet in plan.sheets.items():
        if isinstance(sheet, Curve | Portraits):
            caption = sheet.caption if isinstance(sheet, Curve) else ""
            svg = (FIGURES / f"{name}.svg").read_text()
            made.append(Picture(name, sheet.title, caption, inlined(svg)))
    return made


def main() -> None:
    plan = load_plan()
    runs = runs_of(plan.evaluations())
    labels: dict[Run, dict[str, str]] = {run: {} for run in runs}
    scored = {name: sheet for name, sheet in plan.sheets.items() if isinstance(sheet, Scored)}
    for name, sheet in scored.items():
        for row, evaluations in plan.rows(sheet):
            for one in evaluations:
                labels[one.run][name] = row.label
    links = tracking.reproduction(labels, RESULTS)
    text = page.html(
        "IANet, reproduced",
        sections(plan),
        overview=overview(plan.settings, runs),
        figures=figures(plan),
        curves=[picture for name, sheet in scored.items() for picture in curves(name, sheet, plan)],
        runs=[recorded(run, links.get(run)) for run in runs],
    )
    write_whole(REPORT, text)


if __name__ == "__main__":
    with stage():
        main()
