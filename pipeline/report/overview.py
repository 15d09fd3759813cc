"""What results/report.html shows beside the tables: pictures, and what was run."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import NamedTuple

import pandas as pd

from ianet.cameras import label_cameras
from pipeline.commit import find_commit
from pipeline.config.experiments import (
    BlockTable,
    CostTable,
    Curve,
    RankedLists,
    RelationFigure,
    Table,
)
from pipeline.config.settings import Settings
from pipeline.plan.dvc_yaml import FIGURES, RANKS, SEARCH_RESULTS, TABLES
from pipeline.plan.plan import Plan, own_evaluation, unique_runs
from pipeline.plan.records import SEARCH, read_description, read_scores, read_search
from pipeline.plan.runs import DESCRIPTION, HISTORY, PREPARED, RECORD, Evaluation, Run
from pipeline.report import blocks, cells, costs
from pipeline.report.cost_scores import add_picture
from pipeline.report.page import Section
from pipeline.report.run_list import TrainedRun, read_list
from pipeline.search.results import best_trial
from pipeline.search.space import examples, label
from pipeline.shell import LOGS, format_runs

PACKAGES = ("torch", "torchvision", "ray")
RUN_SCORES = ("top-1", "mAP")  # of a run
SEARCH_FILES = ("trials.csv", SEARCH, "sensitivity.svg")


class Picture(NamedTuple):
    """A picture of the page; `has_cells` tells whether its numbers lie in results/tables."""

    name: str
    title: str
    caption: str
    svg: str
    has_cells: bool


def build_score_sections(plan: Plan) -> dict[str, tuple[Section, pd.DataFrame]]:
    """Every table of scores, with its cells."""
    sections = {}
    for name, table in plan.experiments.items():
        if isinstance(table, Table):
            results = cells.read_results(name, table, plan)
            frame, section = cells.build_section(name, table, plan, results)
            sections[name] = (section, frame)
    return sections


def build_other_sections(plan: Plan, evaluations: Sequence[Evaluation]) -> list[Section]:
    """Every table of blocks or costs; `evaluations` have scores."""
    sections = []
    for name, table in plan.experiments.items():
        if isinstance(table, BlockTable):
            frame = blocks.measure_blocks(table, plan)
            sections.append(blocks.build_section(name, table, frame))
        elif isinstance(table, CostTable):
            frame = pd.read_csv(TABLES / f"{name}.csv")
            section = costs.build_section(name, table, frame)
            sections.append(add_picture(section, table, evaluations, plan.settings))
    return sections


def read_figures(plan: Plan) -> list[Picture]:
    """Every figure of the plan; a figure of relation maps has its caption in the picture."""
    pictures = []
    for name, figure in plan.experiments.items():
        if isinstance(figure, Curve | RelationFigure):
            is_curve = isinstance(figure, Curve)
            caption = figure.caption if is_curve else ""
            svg = (FIGURES / f"{name}.svg").read_text()
            pictures.append(Picture(name, figure.title, caption, svg, has_cells=is_curve))
    return pictures


class Ranks(NamedTuple):
    """Ranked lists on the page, as HTML."""

    name: str
    title: str
    caption: str
    html: str


def read_ranked_lists(plan: Plan) -> list[Ranks]:
    """The ranked lists of the plan."""
    return [
        Ranks(name, lists.title, lists.caption, (RANKS / f"{name}.html").read_text())
        for name, lists in plan.experiments.items()
        if isinstance(lists, RankedLists)
    ]


class SearchSummary(NamedTuple):
    """The result of a search.

    Attributes:
        svg: the score over each option.
        result: sentences: the number of trials, the best values, their scores.
    """

    name: str
    title: str
    caption: str
    svg: str
    result: str


def read_search_summaries(plan: Plan) -> list[SearchSummary]:
    """The searches of the plan that have results, of the folders in results/searches."""
    summaries = []
    for name, search in plan.searches.items():
        folder = SEARCH_RESULTS / name
        if not all((folder / file).exists() for file in SEARCH_FILES):
            continue
        trials = pd.read_csv(folder / "trials.csv")
        scores = read_search(folder)
        if set(scores["best"]) != set(next(examples(search))):
            continue  # of another space, which the file of the search no longer has
        score = trials[search.maximise][best_trial(trials, search)]
        result = (
            f"{len(trials)} trials on {search.dataset}. {label(search, scores['best'])} has the "
            f"best {search.maximise} on held-out people, {100 * score:.1f} %. A "
            "network with these values was trained on all people, and scored once on test: "
            f"{100 * scores['test'][search.maximise]:.1f} %{label_cameras(scores['cameras'])}. "
            "One seed a trial is no finding."
        )
        if "commit" in scores:
            result += f" The search is of {scores['date']}, commit {scores['commit']}."
        svg = (folder / "sensitivity.svg").read_text()
        summaries.append(SearchSummary(name, search.title, search.caption, svg, result))
    return summaries


def draw_line(values: Sequence[float]) -> str:
    """The points of a line of 60 x 16 pixels through values, for SVG; the largest is on top."""
    low, high = min(values), max(values)
    across, down = 60 / max(len(values) - 1, 1), 14 / ((high - low) or 1)
    return " ".join(
        f"{across * place:.1f},{1 + down * (high - value):.1f}"
        for place, value in enumerate(values)
    )


def find_row_labels(plan: Plan, runs: Sequence[Run]) -> dict[Run, dict[str, str]]:
    """For each run the tables that show the run, with the label of its row."""
    labels: dict[Run, dict[str, str]] = {run: {} for run in runs}
    for name, table in plan.experiments.items():
        if not isinstance(table, Table | Curve):
            continue
        for row, evaluations in plan.rows(table):
            for evaluation in evaluations:
                if evaluation.run in labels:
                    labels[evaluation.run][name] = row.label
    return labels


def describe_runs(runs: Sequence[Run], foreign: Sequence[Run]) -> str:
    """What was trained, on which data, by which recipes.

    Args:
        runs: of data at hand.
        foreign: of other data, whose results were brought in.
    """
    texts = []
    for group, place in ((runs, ""), (foreign, ", in another checkout")):
        for dataset in dict.fromkeys(run.dataset for run in group):
            recipes = [run.recipe for run in group if run.dataset == dataset]
            names = " and ".join(dict.fromkeys(recipes))
            texts.append(f"{format_runs(len(recipes))} on {dataset} by {names}{place}")
    return f"Trained and scored: {'; '.join(texts) or 'nothing'}."


def count_looks_at_test(evaluations: Sequence[Evaluation]) -> str:
    """How often test was scored, which each choice by a score there makes worth less."""
    looks = Counter(each.on for each in evaluations if read_scores(each)["split"] == "test")
    runs = ", ".join(f"{count} of {name}" for name, count in looks.items()) or "none"
    searches = len(list(SEARCH_RESULTS.glob("*/trials.json")))
    return f"by runs {runs}; {searches} by searches, which score their best alone there"


def summarize(
    settings: Settings, evaluations: Sequence[Evaluation], foreign: Sequence[Evaluation]
) -> dict[str, str]:
    """What was run, on which data, by which recipes and code: term to text.

    Args:
        settings: of params.yaml.
        evaluations: of data at hand.
        foreign: of other data, whose results were brought in.
    """
    runs = unique_runs(evaluations)
    names = dict.fromkeys([*settings.at_hand, *(each.on for each in evaluations)])
    counts = {
        name: read_description(PREPARED / name)["counts"]
        for name in names
        if (PREPARED / name / DESCRIPTION).exists()
    }
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
        for name in dict.fromkeys(run.recipe for run in unique_runs([*evaluations, *foreign]))
    }
    seeds = Counter((run.dataset, run.network, run.recipe) for run in runs).values()
    run_counts = f"{len(runs)} here"
    if seeds:
        run_counts += f", with {min(seeds)} to {max(seeds)} seeds of a network"
    if foreign:
        run_counts += f"; {len(unique_runs(foreign))} of another checkout"
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "Runs": run_counts,
        "Looks at test": count_looks_at_test([*evaluations, *foreign]),
        **data,
        **recipes,
        "Date": f"{datetime.now(UTC):%Y-%m-%d} (UTC)",
        "Code": f"commit {find_commit()}; Python {platform.python_version()}, {packages}",
    }


class RunRow(NamedTuple):
    """A row of the page's list of runs.

    Attributes:
        url: of the run's page in MLflow.
        scores: those of `RUN_SCORES`, in percent.
        losses, line: of the epochs, and as points of `draw_line`.
        files: name to path, seen from the page; none of a run that was made elsewhere.
        failure: why the last attempt failed; nothing of a run that is finished.
        label: of the scores, see `label_cameras`.
    """

    key: str
    url: str | None = None
    scores: Sequence[float | None] = (None,) * len(RUN_SCORES)
    epochs: int | None = None
    losses: Sequence[float] = ()
    line: str = ""
    minutes: float | None = None
    date: str = ""
    commit: str = ""
    machine: str = ""
    files: Mapping[str, str] = {}
    failure: str = ""
    label: str = ""


def find_log(run: Run) -> dict[str, str]:
    """The log of a run, as `RunRow.files`."""
    return {"log": f"../{LOGS / run.key}.log"}


def build_run_row(trained: TrainedRun, url: str | None, failure: str) -> RunRow:
    """The row of a run that was trained; `url` and `failure` are those of `RunRow`."""
    run, history, record, scores = trained
    losses = history.loss.tolist()
    return RunRow(
        run.key,
        url,
        scores=[None if scores.get(name) is None else 100 * scores[name] for name in RUN_SCORES],
        epochs=len(history),
        losses=losses,
        line=draw_line(losses),
        minutes=history.seconds.sum() / 60,
        date=record["date"],
        commit=record["commit"],
        machine=record["environment"]["device"],
        files={
            "configuration": f"../{run.folder / RECORD}",
            "history": f"../{run.folder / HISTORY}",
            **find_log(run),
        },
        failure=failure,
        label=label_cameras(scores["cameras"]) if scores else "",
    )


def build_failed_rows(failures: Mapping[Run, str]) -> list[RunRow]:
    """The rows of runs without a training that ended, see `find_failures`."""
    return [
        RunRow(run.key, files=find_log(run), failure=reason) for run, reason in failures.items()
    ]


def read_foreign_rows(foreign: Sequence[Evaluation]) -> list[RunRow]:
    """The rows of runs whose results were brought in, from their lines in results/runs.csv."""
    lines = read_list().set_index("key").to_dict("index")
    rows = []
    for run in unique_runs(foreign):
        if run.key in lines:
            line, evaluation = lines[run.key], own_evaluation(run)
            rows.append(
                RunRow(
                    run.key,
                    scores=[
                        None if pd.isna(line[name]) else 100 * line[name] for name in RUN_SCORES
                    ],
                    epochs=line["epochs"],
                    minutes=60 * line["hours"],
                    commit=line["commit"],
                    machine=line["machine"],
                    label=label_cameras(read_scores(evaluation)["cameras"])
                    if evaluation in foreign
                    else "",
                )
            )
    return rows
