"""A table of the paper -> results/tables/<name>.csv, .md and .html.

    python -m pipeline.table table4f

Ours beside the paper's: mean and spread over the seeds, and the difference. What was not run,
and what the paper does not print, is a dash.
"""

from __future__ import annotations

import argparse
import json
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.plan import Run, runs_of
from pipeline.settings import Experiment, Settings, SettingsError, experiments, load
from pipeline.shell import stage, write_whole

TABLES = Path("results/tables")
DASH = "–"
COLUMNS = ["label", "dataset", "metric", "ours", "spread", "paper", "difference", "seeds", "split"]


def cells(table: Experiment, settings: Settings, scores: dict[Run, dict[str, Any]]) -> pd.DataFrame:
    """One row for each cell, in percent; NaN where there is no number.

    Args:
        table: what the experiment asks for.
        settings: which data sets are at hand.
        scores: content of results/scores by run.

    Returns:
        Columns `COLUMNS`: ours is the mean over the seeds, spread their standard deviation
        (NaN for a single one), difference is ours less the paper's.
    """
    printed = [name for row in table.rows for name in row.paper]
    datasets = list(dict.fromkeys([*settings.at_hand, *printed]))
    rows = []
    for row in table.rows:
        for dataset in datasets:
            own = [
                score
                for run, score in scores.items()
                if (run.dataset, run.network) == (dataset, row.network)
            ]
            paper = row.paper.get(dataset, (None,) * len(table.metrics))
            for metric, theirs in zip(table.metrics, paper, strict=True):
                numbers = pd.Series([100 * score[metric] for score in own], dtype=float)
                rows.append(
                    {
                        "label": row.label,
                        "dataset": dataset,
                        "metric": metric,
                        "ours": numbers.mean(),
                        "spread": numbers.std(),
                        "paper": theirs,
                        "seeds": len(own),
                        "split": own[0]["split"] if own else None,
                    }
                )
    frame = pd.DataFrame(rows)
    frame["paper"] = frame.paper.astype(float)
    frame["difference"] = frame.ours - frame.paper
    return frame[COLUMNS]


def lines(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The cells of one data set as people read them: a line a label, everything as text."""
    own = frame[frame.dataset == dataset]
    shown = pd.DataFrame(index=pd.Index(own.label.unique(), name=""))
    for metric in own.metric.unique():
        cell = own[own.metric == metric].set_index("label")
        shown[metric] = [
            _number(ours) + (f" ± {spread:.1f}" if pd.notna(spread) else "")
            for ours, spread in zip(cell.ours, cell.spread, strict=True)
        ]
        shown[f"paper's {metric}"] = cell.paper.map(_number)
        shown[f"difference in {metric}"] = [
            DASH if pd.isna(number) else f"{number:+.1f}" for number in cell.difference
        ]
    shown["seeds"] = cell.seeds.replace(0, DASH).astype(str)
    return shown


def _number(value: float) -> str:
    return DASH if pd.isna(value) else f"{value:.1f}"


def notes(frame: pd.DataFrame, settings: Settings) -> str:
    """What was run, in a sentence."""
    run = frame[frame.seeds > 0]
    parts = []
    for (dataset, split), own in run.groupby(["dataset", "split"], sort=False):
        at = settings.datasets[str(dataset)]
        seeds = sorted(set(own.seeds))
        parts.append(
            f"{dataset}: recipe {at.recipe}, {' or '.join(map(str, seeds))} seed"
            f"{'s' if seeds != [1] else ''}, scored on {split}"
        )
    text = "; ".join(parts) if parts else "nothing was run"
    return (
        f"Ours: {text}. In percent; ± is the standard deviation over the seeds; the difference "
        f"is ours less the paper's; {DASH} was not run, or is not in the paper."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.table", description=__doc__)
    parser.add_argument("name", help="of a file in experiments/")
    name = parser.parse_args().name
    settings = load()
    tables = {
        name: table
        for name, table in experiments(settings).items()
        if isinstance(table, Experiment)
    }
    if name not in tables:
        raise SettingsError(f"{name!r} is no table: choose {', '.join(tables)}")
    table = tables[name]
    scores = {}
    for run in runs_of(table, settings):
        if not run.scores.exists():
            raise FileNotFoundError(
                f"{run.scores} does not exist: `dvc repro {name}` trains and "
                "evaluates what is missing"
            )
        scores[run] = json.loads(run.scores.read_text())
    frame = cells(table, settings, scores)
    note = notes(frame, settings)
    by_dataset = {str(dataset): lines(frame, dataset) for dataset in frame.dataset.unique()}
    write_whole(TABLES / f"{name}.csv", frame.to_csv(index=False, float_format="%.2f"))
    markdown = [f"# {table.title}", table.caption]
    page = [f"<h1>{escape(table.title)}</h1>", f"<p>{escape(table.caption)}</p>"]
    for dataset, shown in by_dataset.items():
        text = shown.to_markdown(disable_numparse=True)
        markdown += [f"## {dataset}", text]
        page += [f"<h2>{escape(dataset)}</h2>", f"<div>{shown.to_html(border=0)}</div>"]
        if dataset in settings.at_hand:
            print(f"{table.title}, {dataset}\n{text}")
    write_whole(TABLES / f"{name}.md", "\n\n".join([*markdown, note]) + "\n")
    page.append(f"<p>{escape(note)}</p>")
    write_whole(
        TABLES / f"{name}.html", PAGE.format(title=escape(table.title), body="\n".join(page))
    )


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; }}
p {{ max-width: 60rem; }}
div {{ overflow-x: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .3rem .7rem; text-align: right; white-space: nowrap; }}
thead th {{ text-align: center; }}
tbody th {{ text-align: left; font-weight: normal; }}
tbody tr {{ border-top: 1px solid #ddd; }}
</style>
{body}
</html>
"""


if __name__ == "__main__":
    with stage():
        main()
