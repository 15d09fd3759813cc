"""The cells of tables and curves: ours beside the paper's, and gains over baselines.

A cell is the mean over the seeds, with the spread over the seeds and the difference from the paper.
A gain over the network that a row is compared with has an interval. What was not run, and what the
paper does not print, is a dash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import pandas as pd

from ianet.comparison import paired_bootstrap
from pipeline.config.experiments import ScoreTable
from pipeline.plan.plan import Plan
from pipeline.plan.runs import Evaluation
from pipeline.report.page import DASH, Cell, Panel, Section, TableRow

ENTROPY = "entropy"  # the only metric that queries do not contribute to


class Results(NamedTuple):
    """What the evaluations of a table wrote.

    Attributes:
        scores: content of the files of scores.
        queries: content of the files of queries, for the evaluations that are compared.
    """

    scores: Mapping[Evaluation, dict[str, Any]]
    queries: Mapping[Evaluation, pd.DataFrame]


def read_results(name: str, table: ScoreTable, plan: Plan) -> Results:
    """The files of a table's evaluations; `name` is that of the table, for the message.

    Raises:
        FileNotFoundError: an evaluation was not run.
    """
    scores: dict[Evaluation, dict[str, Any]] = {}
    queries: dict[Evaluation, pd.DataFrame] = {}
    for row, evaluations in plan.rows(table):
        for evaluation in evaluations:
            baseline = plan.baseline(row, evaluation)
            compared = [evaluation, baseline] if baseline else []
            for path in [evaluation.scores, *(each.queries for each in compared)]:
                if not path.exists():
                    raise FileNotFoundError(
                        f"{path} does not exist: `dvc repro {name}` trains and evaluates what is "
                        "missing"
                    )
            scores[evaluation] = json.loads(evaluation.scores.read_text())
            queries |= {each: pd.read_parquet(each.queries) for each in compared}
    return Results(scores, queries)


def cells(table: ScoreTable, plan: Plan, results: Results) -> pd.DataFrame:
    """One row for each cell, in percent; NaN where there is no number.

    A rival has cells for the data sets of which the paper quotes the rival.

    Args:
        table: what the experiment asks for.
        plan: which data sets are at hand, and which of them the table shows.
        results: of the evaluations that the table needs.

    Returns:
        group, label, dataset, metric; ours, the mean over the seeds, and spread, their standard
        deviation (NaN for a single seed); paper, and difference, ours less the paper's; against,
        gain over that network with gain_low and gain_high, a 95 % interval (`paired_bootstrap`);
        seeds, their number; split; and runs, their keys.
    """
    rows = plan.rows(table)
    scored = {evaluation.on for _, evaluations in rows for evaluation in evaluations}
    datasets = [name for name in plan.datasets(table) if name in scored]
    contents = []
    for row, evaluations in rows:
        for dataset in dict.fromkeys([*datasets, *table.printed]):
            if row.network is None and dataset not in row.paper:
                continue  # a rival without a number for the data set
            seeds = [evaluation for evaluation in evaluations if evaluation.on == dataset]
            baselines = [plan.baseline(row, evaluation) for evaluation in seeds]
            scores = [results.scores[evaluation] for evaluation in seeds]
            paper = row.paper.get(dataset, (None,) * len(table.metrics))
            for metric, printed in zip(table.metrics, paper, strict=True):
                # A metric that the data set's protocol does not define is null.
                values = [score[metric] for score in scores if score[metric] is not None]
                percent = 100 * pd.Series(values, dtype=float)
                gain, low, high = _gain(seeds, baselines, metric, results)
                contents.append(
                    {
                        "group": row.group,
                        "label": row.label,
                        "dataset": dataset,
                        "metric": metric,
                        "ours": percent.mean(),
                        "spread": percent.std(),
                        "paper": printed,
                        "difference": percent.mean() - (nan if printed is None else printed),
                        "against": row.against or "",
                        "gain": gain,
                        "gain_low": low,
                        "gain_high": high,
                        "seeds": len(seeds),
                        "split": scores[0]["split"] if scores else None,
                        "runs": " ".join(evaluation.run.key for evaluation in seeds),
                    }
                )
    return pd.DataFrame(contents).astype({"paper": float})


def _gain(
    evaluations: Sequence[Evaluation],
    baselines: Sequence[Evaluation | None],
    metric: str,
    results: Results,
) -> tuple[float, float, float]:
    """Mean difference and its interval, in percent; NaN where nothing is compared."""
    pairs = [
        (evaluation, baseline)
        for evaluation, baseline in zip(evaluations, baselines, strict=True)
        if baseline is not None and results.scores[evaluation].get(metric) is not None
    ]
    if metric == ENTROPY or not pairs:
        return nan, nan, nan
    queries = results.queries
    differences = pd.concat(
        [queries[evaluation][metric] - queries[baseline][metric] for evaluation, baseline in pairs],
        axis=1,
    )
    low, high = paired_bootstrap(differences)
    return 100 * float(differences.mean().mean()), 100 * low, 100 * high


def build_section(
    name: str, table: ScoreTable, plan: Plan, results: Results
) -> tuple[pd.DataFrame, Section]:
    """The cells of a table, and how a page shows them: data sets at hand come first."""
    frame = cells(table, plan, results)
    at_hand = plan.settings.at_hand
    datasets = sorted(frame.dataset.unique(), key=lambda dataset: dataset not in at_hand)
    panels = [build_panel(frame, str(dataset)) for dataset in datasets]
    note = describe(frame, table, plan, results)
    return frame, Section(name, table.title, table.caption, panels, note)


def build_panel(frame: pd.DataFrame, dataset: str) -> Panel:
    """The cells of one data set as people read them, a row for each label."""
    frame = frame[frame.dataset == dataset]
    is_compared = bool((frame.against != "").any())
    is_printed = bool(frame.paper.notna().any())
    columns: list[str] = []
    for metric in frame.metric.unique():
        columns.append(metric)
        if is_compared and metric != ENTROPY:
            columns.append("gain [95 %]")
        if is_printed:
            columns += ["paper's", "difference"]
    rows = []
    for (group, label), contents in frame.groupby(["group", "label"], sort=False):
        texts: list[Cell] = []
        for _, content in contents.iterrows():
            spread = f" ± {content.spread:.1f}" if pd.notna(content.spread) else ""
            digits = 3 if content.metric == ENTROPY else 1
            texts.append(Cell(_format(content.ours, digits) + spread, "ours"))
            if is_compared and content.metric != ENTROPY:
                texts.append(_gain_cell(content))
            if is_printed:
                texts += [Cell(_format(content.paper)), _difference_cell(content)]
        seeds, runs = contents.seeds.iloc[0], contents.runs.iloc[0]
        texts.append(Cell(str(seeds) if seeds else DASH, runs=tuple(runs.split())))
        rows.append(TableRow(str(group), str(label), texts))
    return Panel(dataset, [*columns, "seeds"], rows)


def _gain_cell(content: Any) -> Cell:
    if pd.isna(content.gain):
        return Cell(DASH)
    kind = "gain" if content.gain_low > 0 else "loss" if content.gain_high < 0 else "unsure"
    return Cell(f"{content.gain:+.1f} [{content.gain_low:+.1f}, {content.gain_high:+.1f}]", kind)


def _difference_cell(content: Any) -> Cell:
    if pd.isna(content.difference):
        return Cell(DASH)
    kind = ""
    if pd.notna(content.spread):
        kind = "within" if abs(content.difference) <= content.spread else "outside"
    return Cell(f"{content.difference:+.1f}", kind)


def _format(value: float, digits: int = 1) -> str:
    return DASH if pd.isna(value) else f"{value:.{digits}f}"


def describe(frame: pd.DataFrame, table: ScoreTable, plan: Plan, results: Results) -> str:
    """The note under a table: what was run, and how the columns are to be read.

    Args:
        frame: the table's `cells`.
        table, plan, results: as of `cells`.
    """
    texts = []
    for (dataset, split), contents in frame[frame.seeds > 0].groupby(
        ["dataset", "split"], sort=False
    ):
        roles = plan.settings.datasets[str(dataset)].recipes
        recipes = dict.fromkeys(roles.get(row.recipe) for row in table.rows)
        names = " and ".join(name for name in recipes if name)
        seeds = sorted(set(contents.seeds))
        texts.append(
            f"{dataset}: recipe {names}, {' or '.join(map(str, seeds))} seed"
            f"{'s' if seeds != [1] else ''}, scored on {split}"
        )
    text = "; ".join(texts) if texts else "nothing was run"
    if (frame.against != "").any():
        text += (
            f". Gain: over {' or '.join(dict.fromkeys(filter(None, frame.against)))}, with a 95 % "
            "interval from a paired bootstrap over queries"
            + (" and seeds" if (frame.seeds > 1).any() else ", which says nothing of other seeds")
        )
    if versions := sorted({score["torch"] for score in results.scores.values()}):
        text += f". Trained with torch {' and '.join(versions)}"
    return (
        f"Ours: {text}. In percent; ± is the standard deviation over the seeds; the difference "
        f"is ours less the paper's; {DASH} was not run, or is not in the paper."
    )
