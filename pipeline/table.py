"""A table of experiments/ -> results/tables/<name>.csv, .md, .tex and .html.

    python -m pipeline.table table4f

Ours beside the paper's: mean and spread over the seeds, the difference, and how sure a
difference from the network that a row is compared with is. What was not run, and what the
paper does not print, is a dash.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from math import nan
from typing import Any, NamedTuple

import pandas as pd

from ianet.comparison import paired_bootstrap
from pipeline import page
from pipeline.experiments import Scored, Table
from pipeline.page import DASH
from pipeline.plan import TABLES, Evaluation, Plan, load_plan
from pipeline.shell import stage

ENTROPY = "entropy"  # the one metric that queries do not contribute to


class Results(NamedTuple):
    """What the evaluations of a table wrote.

    Attributes:
        scores: content of results/scores.
        queries: content of results/queries, of those that are compared.
    """

    scores: Mapping[Evaluation, dict[str, Any]]
    queries: Mapping[Evaluation, pd.DataFrame]


def cells(table: Scored, plan: Plan, results: Results) -> pd.DataFrame:
    """One row for each cell, in percent; NaN where there is no number. A rival has cells for the
    data sets of which the paper quotes it.

    Args:
        table: what the experiment asks for.
        plan: which data sets are at hand, and which of them it shows.
        results: of the evaluations that it needs.

    Returns:
        group, label, dataset, metric; ours, the mean over the seeds, and spread, their standard
        deviation (NaN for a single one); paper, and difference, ours less the paper's; against,
        gain over that network with gain_low and gain_high, a 95 % interval (`paired_bootstrap`);
        seeds, their number; split; and runs, their names.
    """
    needed = plan.rows(table)
    scored = {one.on for _, evaluations in needed for one in evaluations}
    datasets = [name for name in plan.datasets(table) if name in scored]
    rows = []
    for row, evaluations in needed:
        for dataset in dict.fromkeys([*datasets, *table.printed]):
            if row.network is None and dataset not in row.paper:
                continue  # a rival of which nothing is known here
            own = [one for one in evaluations if one.on == dataset]
            scores = [results.scores[one] for one in own]
            paper = row.paper.get(dataset, (None,) * len(table.metrics))
            for metric, theirs in zip(table.metrics, paper, strict=True):
                # A metric that the data set's protocol does not define is null.
                found = [score[metric] for score in scores if score[metric] is not None]
                numbers = 100 * pd.Series(found, dtype=float)
                others = [plan.compared_with(row, one) for one in own]
                gain, low, high = _gain(own, others, metric, results)
                rows.append(
                    {
                        "group": row.group,
                        "label": row.label,
                        "dataset": dataset,
                        "metric": metric,
                        "ours": numbers.mean(),
                        "spread": numbers.std(),
                        "paper": theirs,
                        "difference": numbers.mean() - (nan if theirs is None else theirs),
                        "against": row.against or "",
                        "gain": gain,
                        "gain_low": low,
                        "gain_high": high,
                        "seeds": len(own),
                        "split": scores[0]["split"] if scores else None,
                        "runs": " ".join(one.run.key for one in own),
                    }
                )
    return pd.DataFrame(rows).astype({"paper": float})


def _gain(
    own: list[Evaluation], others: list[Evaluation | None], metric: str, results: Results
) -> tuple[float, float, float]:
    """Mean difference and its interval, in percent; NaN where nothing is compared."""
    pairs = [(one, other) for one, other in zip(own, others, strict=True) if other is not None]
    compared = [pair for pair in pairs if results.scores[pair[0]].get(metric) is not None]
    if metric == ENTROPY or not compared:
        return nan, nan, nan
    differences = pd.concat(
        [results.queries[one][metric] - results.queries[other][metric] for one, other in compared],
        axis=1,
    )
    low, high = paired_bootstrap(differences)
    return 100 * float(differences.mean().mean()), 100 * low, 100 * high


def shown(frame: pd.DataFrame, dataset: str) -> page.Part:
    """The cells of one data set as people read them, a line a label."""
    own = frame[frame.dataset == dataset]
    compared, printed = bool((own.against != "").any()), bool(own.paper.notna().any())
    columns: list[str] = []
    for metric in own.metric.unique():
        columns.append(metric)
        if compared and metric != ENTROPY:
            columns.append("gain [95 %]")
        if printed:
            columns += ["paper's", "difference"]
    lines = []
    for (group, label), line in own.groupby(["group", "label"], sort=False):
        texts: list[page.Cell] = []
        for _, cell in line.iterrows():
            spread = f" ± {cell.spread:.1f}" if pd.notna(cell.spread) else ""
            digits = 3 if cell.metric == ENTROPY else 1
            texts.append(page.Cell(_number(cell.ours, digits) + spread, "ours"))
            if compared and cell.metric != ENTROPY:
                texts.append(_gain_cell(cell))
            if printed:
                texts += [page.Cell(_number(cell.paper)), _difference_cell(cell)]
        seeds, runs = line.seeds.iloc[0], line.runs.iloc[0]
        texts.append(page.Cell(str(seeds) if seeds else DASH, runs=tuple(runs.split())))
        lines.append(page.Line(str(group), str(label), texts))
    return page.Part(dataset, [*columns, "seeds"], lines)


def _gain_cell(cell: Any) -> page.Cell:
    if pd.isna(cell.gain):
        return page.Cell(DASH)
    sure = "gain" if cell.gain_low > 0 else "loss" if cell.gain_high < 0 else "unsure"
    return page.Cell(f"{cell.gain:+.1f} [{cell.gain_low:+.1f}, {cell.gain_high:+.1f}]", sure)


def _difference_cell(cell: Any) -> page.Cell:
    if pd.isna(cell.difference):
        return page.Cell(DASH)
    known = pd.notna(cell.spread)
    kind = ("within" if abs(cell.difference) <= cell.spread else "outside") if known else ""
    return page.Cell(f"{cell.difference:+.1f}", kind)


def _number(value: float, digits: int = 1) -> str:
    return DASH if pd.isna(value) else f"{value:.{digits}f}"


def notes(frame: pd.DataFrame, table: Scored, plan: Plan) -> str:
    """What was run, in a sentence."""
    run = frame[frame.seeds > 0]
    parts = []
    for (dataset, split), own in run.groupby(["dataset", "split"], sort=False):
        at = plan.settings.datasets[str(dataset)]
        recipes = dict.fromkeys(at.recipes.get(row.recipe) for row in table.rows)
        names = " and ".join(name for name in recipes if name)
        seeds = sorted(set(own.seeds))
        parts.append(
            f"{dataset}: recipe {names}, {' or '.join(map(str, seeds))} seed"
            f"{'s' if seeds != [1] else ''}, scored on {split}"
        )
    text = "; ".join(parts) if parts else "nothing was run"
    if (frame.against != "").any():
        text += (
            f". Gain: over {' or '.join(dict.fromkeys(filter(None, frame.against)))}, with a 95 % "
            "interval from a paired bootstrap over queries"
            + (" and seeds" if (frame.seeds > 1).any() else ", which says nothing of other seeds")
        )
    return (
        f"Ours: {text}. In percent; ± is the standard deviation over the seeds; the difference "
        f"is ours less the paper's; {DASH} was not run, or is not in the paper."
    )


def read(name: str, table: Scored, plan: Plan) -> Results:
    """What the evaluations of a table wrote.

    Raises:
        FileNotFoundError: one of them was not run.
    """
    scores: dict[Evaluation, dict[str, Any]] = {}
    queries: dict[Evaluation, pd.DataFrame] = {}
    for row, evaluations in plan.rows(table):
        for one in evaluations:
            other = plan.compared_with(row, one)
            for path in [one.scores, *([one.queries, other.queries] if other else [])]:
                if not path.exists():
                    raise FileNotFoundError(
                        f"{path} does not exist: `dvc repro {name}` trains and evaluates what is "
                        "missing"
                    )
            scores[one] = json.loads(one.scores.read_text())
            if other is not None:
                queries |= {each: pd.read_parquet(each.queries) for each in (one, other)}
    return Results(scores, queries)


def section(name: str, table: Scored, plan: Plan) -> tuple[pd.DataFrame, page.Section]:
    """The cells of a table, and how a page shows them."""
    frame = cells(table, plan, read(name, table, plan))
    at_hand = plan.settings.at_hand
    datasets = sorted(frame.dataset.unique(), key=lambda dataset: dataset not in at_hand)
    parts = [shown(frame, str(dataset)) for dataset in datasets]
    return frame, page.Section(name, table.title, table.caption, parts, notes(frame, table, plan))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.table", description=__doc__)
    parser.add_argument("name", help="of a file in experiments/")
    name = parser.parse_args().name
    plan = load_plan()
    table = plan.sheet(name, Table)
    frame, made = section(name, table, plan)
    page.write(made, TABLES, frame)
    for part in made.parts:
        if part.dataset in plan.settings.at_hand:
            print(f"{made.title}, {part.dataset}\n{page.as_frame(part).to_markdown(index=False)}")


if __name__ == "__main__":
    with stage():
        main()
