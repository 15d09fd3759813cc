"""What results/report.html shows beside the tables: pictures, curves, and what was run."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import pandas as pd

from ianet import drawing
from pipeline.commit import find_commit
from pipeline.config.experiments import (
    BlockTable,
    CostTable,
    Curve,
    RelationFigure,
    ScoreTable,
    Table,
)
from pipeline.config.settings import Settings
from pipeline.plan.dvc_yaml import FIGURES, SEARCH_RESULTS, TABLES
from pipeline.plan.plan import Plan, unique_runs
from pipeline.plan.records import read_description, read_history, read_record, read_scores
from pipeline.plan.runs import PREPARED, Evaluation, Run
from pipeline.report import blocks, cells, costs
from pipeline.report.page import Section

PACKAGES = ("torch", "torchvision", "ray")
SHOWN = ("top-1", "mAP")  # of a run


class Picture(NamedTuple):
    """A picture of the page."""

    name: str
    title: str
    caption: str
    svg: str


def score_sections(plan: Plan) -> dict[str, tuple[Section, pd.DataFrame]]:
    """Every table of scores, with its cells."""
    sections = {}
    for name, table in plan.experiments.items():
        if isinstance(table, Table):
            results = cells.read_results(name, table, plan)
            frame, section = cells.build_section(name, table, plan, results)
            sections[name] = (section, frame)
    return sections


def other_sections(plan: Plan) -> list[Section]:
    """Every table of blocks or costs."""
    sections = []
    for name, table in plan.experiments.items():
        if isinstance(table, BlockTable):
            frame = blocks.measure_blocks(table, plan)
            sections.append(blocks.build_section(name, table, frame))
        elif isinstance(table, CostTable):
            frame = pd.read_csv(TABLES / f"{name}.csv")
            sections.append(costs.build_section(name, table, frame))
    return sections


def figure_pictures(plan: Plan) -> list[Picture]:
    """Every figure of the plan; a figure of relation maps has its caption in the picture."""
    pictures = []
    for name, figure in plan.experiments.items():
        if isinstance(figure, Curve | RelationFigure):
            caption = figure.caption if isinstance(figure, Curve) else ""
            svg = (FIGURES / f"{name}.svg").read_text()
            pictures.append(Picture(name, figure.title, caption, svg))
    return pictures


def draw_curves(name: str, table: ScoreTable, plan: Plan) -> list[Picture]:
    """Training loss and CMC of a table's rows, a picture for each data set."""
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for row, evaluations in plan.rows(table):
        for evaluation in evaluations:
            label = f"{row.group}: {row.label}" if row.group else row.label
            lines = curves.setdefault(evaluation.on, {})
            if label not in lines:  # the first seed stands for all seeds, for a clear picture
                loss = read_history(evaluation.run).loss.tolist()
                lines[label] = (loss, read_scores(evaluation)["cmc"])
    return [
        Picture(
            f"{name}-{dataset}",
            f"{table.title}, {dataset}",
            "Training loss and queries matched by rank, of the first seed.",
            drawing.svg(drawing.learning_curves(lines)),
        )
        for dataset, lines in curves.items()
    ]


def score_tables(plan: Plan) -> dict[str, ScoreTable]:
    """The tables and curves of the plan that show scores, by name."""
    return {
        name: table for name, table in plan.experiments.items() if isinstance(table, Table | Curve)
    }


def row_labels(plan: Plan, runs: Sequence[Run]) -> dict[Run, dict[str, str]]:
    """For each run the tables that show the run, with the label of its row."""
    labels: dict[Run, dict[str, str]] = {run: {} for run in runs}
    for name, table in score_tables(plan).items():
        for row, evaluations in plan.rows(table):
            for evaluation in evaluations:
                labels[evaluation.run][name] = row.label
    return labels


def count_looks_at_test(evaluations: Sequence[Evaluation]) -> str:
    """How often test was scored, which each choice by a score there makes worth less."""
    runs = sum(read_scores(each)["split"] == "test" for each in evaluations)
    searches = len(list(SEARCH_RESULTS.glob("*/trials.json")))
    return f"{runs} by runs; {searches} by searches, which score their best alone there"


def summarize(settings: Settings, evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """What was run, on which data, by which recipes and code: term to text."""
    runs = unique_runs(evaluations)
    counts = {name: read_description(PREPARED / name)["counts"] for name in settings.at_hand}
    data = {
        f"Data set {name}": ", ".join(f"{number:,} {what}" for what, number in count.items())
        for name, count in counts.items()
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
    seeds = len({run.seed for run in runs})
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "Runs": f"{len(runs)}, {seeds} seed{'s' if seeds > 1 else ''}",
        "Looks at test": count_looks_at_test(evaluations),
        **data,
        **recipes,
        "Code": f"commit {find_commit()}; Python {platform.python_version()}, {packages}",
    }


def run_row(run: Run, evaluations: Sequence[Evaluation], url: str | None) -> dict[str, Any]:
    """The row of a run.

    Args:
        run: which.
        evaluations: of the page.
        url: of the run's page in MLflow.
    """
    history = read_history(run)
    record = read_record(run)
    own = Evaluation(run, run.dataset)
    scores = read_scores(own) if own in evaluations else {}
    return {
        "key": run.key,
        "url": url,
        "scores": [None if scores.get(name) is None else 100 * scores[name] for name in SHOWN],
        "epochs": len(history),
        "minutes": history.seconds.sum() / 60,
        "date": record["date"],
        "commit": record["commit"],
        "machine": record["environment"]["device"],
    }
