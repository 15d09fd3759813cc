"""results/report.html: every table and figure, curves, and what was run, on one page.

It needs nothing but itself, and links to the runs in MLflow; there, one run named
"reproduction" holds all tables and figures.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ianet import drawing
from pipeline import page, table, tracking
from pipeline.plan import PREPARED, Run, evaluations_of, plan, runs_of
from pipeline.settings import Experiment, Settings, experiments, load
from pipeline.shell import stage, write_whole

RESULTS = Path("results")
REPORT = RESULTS / "report.html"


class Picture(NamedTuple):
    name: str
    title: str
    caption: str
    svg: str


def curves(
    name: str, settings: Settings, tables: Mapping[str, Experiment]
) -> list[Picture]:
    """Training loss and CMC of a table's rows, a picture for each data set."""
    found: dict[str, dict[str, tuple[pd.DataFrame, list[float]]]] = {}
    for row, evaluations in evaluations_of(tables[name], settings, tables):
        for one in evaluations:
            history = pd.read_csv(one.run.folder / "history.csv")
            cmc = json.loads(one.scores.read_text())["cmc"]
            label = f"{row.group}: {row.label}" if row.group else row.label
            # The first seed of a row stands for it: curves are to be told apart.
            found.setdefault(one.on, {}).setdefault(label, (history, cmc))
    return [
        Picture(
            f"{name}-{dataset}",
            f"{tables[name].title}, {dataset}",
            "Training loss (left) and queries matched by rank (right), of the first seed.",
            drawing.svg(drawing.learning_curves(lines)),
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
            for what, number in json.loads((PREPARED / name / "counts.json").read_text()).items()
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


def main() -> None:
    settings = load()
    tables = experiments(settings)
    runs = runs_of(plan(settings, tables))
    rows: dict[Run, dict[str, str]] = {run: {} for run in runs}
    for name, each in tables.items():
        for row, evaluations in evaluations_of(each, settings, tables):
            for one in evaluations:
                rows[one.run][name] = row.label
    links = tracking.reproduction(rows, RESULTS)
    sections = [table.section(name, settings, tables)[1] for name in tables]
    text = page.html(
        "IANet, reproduced",
        sections,
        overview=overview(settings, runs),
        figures=[],
        curves=[picture for name in tables for picture in curves(name, settings, tables)],
        runs=[recorded(run, links.get(run)) for run in runs],
    )
    write_whole(REPORT, text)


if __name__ == "__main__":
    with stage():
        main()
