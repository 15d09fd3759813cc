"""The cells of tables and curves: ours beside the paper's, and gains over baselines.

A cell is the mean over the seeds, with an interval, the spread over the seeds and the difference
from the paper. A gain over the network that a row is compared with has an interval and a p-value,
which is corrected for all comparisons of the table. What was not run, and what the paper does not
print, is a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, NamedTuple

import pandas as pd

from ianet import drawing
from ianet.cameras import label_cameras
from ianet.comparison import (
    Estimate,
    correct_holm,
    estimate_mean,
    expect_average_precision,
)
from pipeline.config.experiments import Row, ScoreTable
from pipeline.plan.plan import Plan
from pipeline.plan.records import read_queries, read_scores
from pipeline.plan.runs import Evaluation
from pipeline.report.page import DASH, Cell, Panel, Section, TableRow

ENTROPY = "entropy"  # the only metric that queries do not contribute to
ENOUGH_SEEDS = 3  # for a difference that is a finding
LEVEL = 0.05  # p-values below are findings
GAINS = "Gains with their 95 % intervals. A filled point is a finding."
SIGNS = {"gain": " ▲", "loss": " ▼", "unsure": ""}  # a colour is never alone


class Results(NamedTuple):
    """What the evaluations of a table wrote.

    Attributes:
        scores: content of the files of scores.
        queries: content of the files of queries.
    """

    scores: Mapping[Evaluation, dict[str, Any]]
    queries: Mapping[Evaluation, pd.DataFrame]


def read_results(name: str, table: ScoreTable, plan: Plan) -> Results:
    """The files of a table's evaluations; `name` is that of the table, for the message.

    Raises:
        FileNotFoundError: an evaluation was not run.
    """
    evaluations = [
        each
        for row, row_evaluations in plan.rows(table)
        for evaluation in row_evaluations
        for each in (evaluation, plan.baseline(row, evaluation))
        if each is not None
    ]
    scores: dict[Evaluation, dict[str, Any]] = {}
    queries: dict[Evaluation, pd.DataFrame] = {}
    for evaluation in dict.fromkeys(evaluations):
        for path in (evaluation.scores, evaluation.queries):
            if not path.exists():
                raise FileNotFoundError(
                    f"{path} does not exist: `dvc repro {name}` trains and evaluates what is "
                    "missing"
                )
        scores[evaluation] = read_scores(evaluation)
        queries[evaluation] = read_queries(evaluation)
    return Results(scores, queries)


def compute_cells(table: ScoreTable, plan: Plan, results: Results) -> pd.DataFrame:
    """One row for each cell, in percent; NaN where there is no number.

    A rival has cells for the data sets of which the paper quotes the rival.

    Args:
        table: what the experiment asks for.
        plan: which data sets are at hand, and which of them the table shows.
        results: of the evaluations that the table needs.

    Returns:
        group, label, dataset, metric; ours, the mean over the seeds, with low and high, a 95 %
        interval, and spread, their standard deviation (NaN for a single seed); chance, whether
        the mean is not surely above that of random rankings; paper, and difference, ours less
        the paper's; against, gain over that network with gain_low and gain_high, a 95 %
        interval, gain_p, the p-value after Holm's correction for the table, and detectable, the
        smallest gain that would be found; seeds, their number; split; and runs, their keys.
    """
    rows = plan.rows(table)
    names = {evaluation.on for _, evaluations in rows for evaluation in evaluations}
    datasets = [name for name in plan.datasets(table) if name in names]
    contents: list[dict[str, Any]] = []
    gains: list[Estimate | None] = []
    for row, evaluations in rows:
        for dataset in dict.fromkeys([*datasets, *table.printed]):
            if row.network is None and dataset not in row.paper:
                continue  # a rival without a number for the data set
            seeds = [evaluation for evaluation in evaluations if evaluation.on == dataset]
            scores = [results.scores[evaluation] for evaluation in seeds]
            paper = row.paper.get(dataset, (None,) * len(table.metrics))
            for metric, printed in zip(table.metrics, paper, strict=True):
                # A metric that the data set's protocol does not define is null.
                values = [score[metric] for score in scores if score[metric] is not None]
                percent = 100 * pd.Series(values, dtype=float)
                low, high = _interval(_estimate_score(seeds, metric, results))
                gains.append(_estimate_gain(row, seeds, metric, plan, results))
                contents.append(
                    {
                        "group": row.group,
                        "label": row.label,
                        "dataset": dataset,
                        "metric": metric,
                        "ours": percent.mean(),
                        "low": low,
                        "high": high,
                        "spread": percent.std(),
                        "chance": metric == "mAP" and _is_at_chance(seeds, results),
                        "paper": printed,
                        "difference": percent.mean() - (nan if printed is None else printed),
                        "against": " ".join(filter(None, (row.against, row.against_recipe))),
                        "seeds": len(seeds),
                        "split": scores[0]["split"] if scores else None,
                        "runs": " ".join(evaluation.run.key for evaluation in seeds),
                    }
                )
    frame = pd.DataFrame(contents).astype({"paper": float})
    return pd.concat([frame, _describe_gains(gains, frame.seeds.tolist())], axis=1)


def _describe_gains(gains: Sequence[Estimate | None], seeds: Sequence[int]) -> pd.DataFrame:
    """The columns of `cells` that describe gains, in percent; NaN where nothing is compared.

    The p-value of few seeds leaves out how much seeds differ. Such a gain counts as a comparison of
    p = 1: a smaller p would make Holm's correction of the other gains smaller, too.
    """
    estimates = [
        (gain, number) for gain, number in zip(gains, seeds, strict=True) if gain is not None
    ]
    p_values = iter(
        correct_holm(
            [gain.p_value if number >= ENOUGH_SEEDS else 1.0 for gain, number in estimates]
        )
    )
    rows = []
    for gain in gains:
        if gain is None:
            rows.append((nan,) * 5)
        else:
            detectable = 100 * gain.detectable(len(estimates))
            rows.append((100 * gain.mean, *_interval(gain), next(p_values), detectable))
    names = ["gain", "gain_low", "gain_high", "gain_p", "detectable"]
    return pd.DataFrame(rows, columns=names, dtype=float)


def _estimate_score(
    evaluations: Sequence[Evaluation], metric: str, results: Results
) -> Estimate | None:
    """The mean of a metric; None where queries do not contribute to the metric."""
    queries = {each: results.queries[each] for each in evaluations}
    return _estimate(
        {each: table[metric] for each, table in queries.items() if metric in table}, results
    )


def _estimate_gain(
    row: Row, evaluations: Sequence[Evaluation], metric: str, plan: Plan, results: Results
) -> Estimate | None:
    """The mean difference from the network that a row is compared with; None without one."""
    differences = {}
    for evaluation in evaluations:
        baseline = plan.baseline(row, evaluation)
        queries = results.queries[evaluation]
        if baseline is not None and metric in queries:
            differences[evaluation] = queries[metric] - results.queries[baseline][metric]
    return _estimate(differences, results)


def _is_at_chance(evaluations: Sequence[Evaluation], results: Results) -> bool:
    """Whether the interval of mAP reaches down to the mean of random rankings."""
    excess = {
        each: queries.mAP - expect_average_precision(queries.matches, queries.candidates)
        for each in evaluations
        if "mAP" in (queries := results.queries[each])
    }
    estimate = _estimate(excess, results)
    return estimate is not None and estimate.interval()[0] <= 0


def _estimate(values: Mapping[Evaluation, pd.Series], results: Results) -> Estimate | None:
    """The mean of values of queries, a seed for each evaluation; None for fewer than 2 persons."""
    if not values:
        return None
    persons = pd.concat([results.queries[each].person for each in values])
    persons = persons[~persons.index.duplicated()]
    if persons.nunique() < 2:
        return None
    columns = [column.reindex(persons.index) for column in values.values()]
    return estimate_mean(pd.concat(columns, axis=1), persons)


def _interval(estimate: Estimate | None) -> tuple[float, float]:
    """The 95 % interval in percent, or NaN."""
    low, high = estimate.interval() if estimate else (nan, nan)
    return 100 * low, 100 * high


def is_finding(cell: Any) -> bool:
    """Whether the gain of a cell is distinguished from 0, over enough seeds."""
    return bool(cell.seeds >= ENOUGH_SEEDS and cell.gain_p < LEVEL)


def build_section(
    name: str, table: ScoreTable, plan: Plan, results: Results
) -> tuple[pd.DataFrame, Section]:
    """The cells of a table, and how a page shows them: data sets at hand come first."""
    frame = compute_cells(table, plan, results)
    at_hand = plan.settings.at_hand
    datasets = sorted(frame.dataset.unique(), key=lambda dataset: dataset not in at_hand)
    panels = [build_panel(frame, str(dataset)) for dataset in datasets]
    note = describe(frame, table, plan, results)
    picture = draw_gains(frame) if plan.is_compared(table) else ""
    picture_name = f"Gains of {table.title}"
    return frame, Section(
        name, table.title, table.caption, panels, note, picture, picture_name, GAINS
    )


def find_gains(frame: pd.DataFrame) -> dict[tuple[str, str, str], drawing.Gain]:
    """The gains of cells, by data set, runs and what they are compared with."""
    gains = {}
    for _, cell in frame[frame.gain.notna()].iterrows():
        label = _join_labels(cell.group, cell.label)
        gains[cell.dataset, cell.runs, cell.against] = drawing.Gain(
            label, cell.gain, cell.gain_low, cell.gain_high, is_finding(cell)
        )
    return gains


def _join_labels(group: str, label: str) -> str:
    """The label of a row outside its table, where no title of the group stands above."""
    return f"{group}: {label}" if group else label


def draw_gains(frame: pd.DataFrame) -> str:
    """The gains of a table as SVG, a panel for each data set and metric."""
    panels: dict[tuple[str, str], list[drawing.Gain]] = {}
    for metric, contents in frame.groupby("metric", sort=False):
        for (dataset, _, _), gain in find_gains(contents).items():
            panels.setdefault((dataset, str(metric)), []).append(gain)
    return drawing.svg(drawing.draw_forest(panels))


def build_panel(frame: pd.DataFrame, dataset: str) -> Panel:
    """The cells of one data set as people read them, a row for each label."""
    frame = frame[frame.dataset == dataset]
    is_compared = bool((frame.against != "").any())
    is_printed = bool(frame.paper.notna().any())
    best = frame.groupby("metric").ours.max()
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
            chance = " (chance)" if content.chance else ""
            digits = 3 if content.metric == ENTROPY else 1
            kind = "best" if content.ours == best[content.metric] else "ours"
            texts.append(Cell(_format(content.ours, digits) + spread + chance, kind))
            if is_compared and content.metric != ENTROPY:
                texts.append(_gain_cell(content))
            if is_printed:
                texts += [Cell(_format(content.paper)), Cell(_format_signed(content.difference))]
        seeds, runs = contents.seeds.iloc[0], contents.runs.iloc[0]
        texts.append(Cell(str(seeds) if seeds else DASH, runs=tuple(runs.split())))
        rows.append(TableRow(str(group), str(label), texts, is_run=bool(seeds)))
    return Panel(dataset, [*columns, "seeds"], rows)


def _gain_cell(content: Any) -> Cell:
    if pd.isna(content.gain):
        return Cell(DASH)
    kind = "unsure" if not is_finding(content) else "gain" if content.gain > 0 else "loss"
    text = f"{content.gain:+z.1f} [{content.gain_low:+z.1f}, {content.gain_high:+z.1f}]"
    return Cell(text + SIGNS[kind], kind)


def _format_signed(value: float) -> str:
    return DASH if pd.isna(value) else f"{value:+z.1f}"


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
        keys = [key for runs in contents.runs for key in runs.split()]
        recipes = list(dict.fromkeys(key.split(".")[2] for key in keys))
        names = f"recipe{'s' if len(recipes) > 1 else ''} {', '.join(recipes)}"
        seeds = sorted(set(contents.seeds))
        texts.append(
            f"{dataset}: {names}, {' or '.join(map(str, seeds))} seed"
            f"{'s' if seeds != [1] else ''}, scored on {split}"
            + label_cameras(plan.settings.datasets[str(dataset)].cameras)
        )
    text = "; ".join(texts) if texts else "nothing was run"
    text += describe_comparisons(frame)
    if versions := sorted({score["torch"] for score in results.scores.values()}):
        text += f". Trained with torch {' and '.join(versions)}"
        text += _describe_machines(table, plan, results)
    if frame.chance.any():
        text += ". Chance: no better than random rankings"
    text += ". In percent; ± is the standard deviation over the seeds; bold is the best of a column"
    if frame.paper.notna().any():
        return (
            f"Ours: {text}; the difference is ours less the paper's; {DASH} was not run, or is not "
            "in the paper."
        )
    return f"Ours: {text}; {DASH} was not run."


def _describe_machines(table: ScoreTable, plan: Plan, results: Results) -> str:
    """The machines of the trainings: the usual one, and each other with its rows.

    Networks of two machines differ in the last digits of each step, as two seeds do.
    """
    labels: dict[str, list[str]] = {}
    for row, evaluations in plan.rows(table):
        label = _join_labels(row.group, row.label)
        for evaluation in evaluations:
            machine = results.scores[evaluation]["machine"]
            if machine is not None:
                labels.setdefault(machine, []).append(label)
    usual, *others = sorted(labels, key=lambda machine: -len(labels[machine])) or [""]
    text = f" on {usual}" if usual else ""
    for machine in others:
        text += f"; on {machine}: {', '.join(dict.fromkeys(labels[machine]))}"
    return text


def describe_comparisons(frame: pd.DataFrame) -> str:
    """How the gains of a table are to be read; nothing without gains."""
    gains = frame[frame.gain.notna()]
    if gains.empty:
        return ""
    against = " or ".join(dict.fromkeys(names.split()[0] for names in gains.against))
    text = (
        f". Gain: over {against}, with a 95 % interval for other persons and, over several seeds, "
        f"other seeds. {len(gains)} comparisons; ▲ or ▼ where p < {LEVEL} after Holm's correction "
        "for all of them"
    )
    comparisons = gains[gains.seeds >= ENOUGH_SEEDS]
    if comparisons.empty:
        return f"{text}. With fewer than {ENOUGH_SEEDS} seeds no gain is a finding"
    smallest = ", ".join(
        f"{_format_range(group.detectable)} in {metric}"
        for metric, group in comparisons.groupby("metric", sort=False)
    )
    return (
        f"{text}, over {ENOUGH_SEEDS} seeds or more. Gains that would be found with a chance of "
        f"80 %: {smallest}"
    )


def _format_range(values: pd.Series) -> str:
    low, high = (f"{value:.1f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
