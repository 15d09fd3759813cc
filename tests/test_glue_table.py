"""From the files of scores to a cell by value: its mean, spread, difference, gain and interval.

Each number is computed again from the files that the cell's label, data set and metric name, by
sums over lists.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
from math import nan
from pathlib import Path
from statistics import covariance, fmean, stdev, variance
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from pipeline.config.experiments import Table
from pipeline.plan.plan import load_plan
from pipeline.report.cells import build_section, read_results
from pipeline.stages import table as stage

ROOT = Path(__file__).parents[1]
DATASETS = ("market1501", "dukemtmc")
METRICS = ("top-1", "mAP", "mINP")
SEEDS = (0, 1, 2)
QUERIES, PERSONS = 11, 4
RECIPES = {"plain": "paper", "strong": "strong"}
LINES: list[dict[str, Any]] = [
    {"label": "base.", "network": "base", "paper": {"market1501": [90.4, 76.2, None]}},
    {"label": "IA", "network": "stage2", "against": "base",
     "paper": {"market1501": [94.4, 83.1, 50.0], "dukemtmc": [87.1, 73.4, None]}},
    {"label": "strong IA", "network": "stage2", "recipe": "strong"},
    {"label": "base. of Duke", "network": "base", "trained_on": "dukemtmc", "group": "across"},
    {"label": "IA of Duke", "network": "stage2", "trained_on": "dukemtmc", "group": "across",
     "against": "base"},
]  # fmt: skip


def run_of(line: dict[str, Any], dataset: str, seed: int) -> str:
    recipe = RECIPES[line.get("recipe", "plain")]
    return f"{line.get('trained_on', dataset)}.{line['network']}.{recipe}.{seed}"


def file_of(kind: str, run: str, dataset: str) -> Path:
    """The scores or the queries of a run on a data set, which a run on another names."""
    name = run if run.startswith(f"{dataset}.") else f"{run}.{dataset}"
    return Path("results", dataset, kind, name).with_name(
        f"{name}.{'json' if kind == 'scores' else 'parquet'}"
    )


def write_scores(run: str, dataset: str, draw: np.random.Generator, *, reverse: bool) -> None:
    """Random scores of an evaluation; the rows of the queries in either order."""
    means = {metric: round(float(draw.random()), 6) for metric in METRICS}
    values = draw.random((QUERIES, len(METRICS)), dtype=np.float32)
    queries = pd.DataFrame(values, 3 * np.arange(QUERIES), METRICS)
    queries[["person", "matches", "candidates"]] = [[n % PERSONS, 2, 30] for n in range(QUERIES)]
    for kind in ("scores", "queries"):
        file_of(kind, run, dataset).parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({**means, "split": "test", "torch": "2"})
    file_of("scores", run, dataset).write_text(content)
    (queries[::-1] if reverse else queries).to_parquet(file_of("queries", run, dataset))


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    """A table, in a project with random scores."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["at_hand"] = list(DATASETS)
    for name in DATASETS:
        params["datasets"][name] |= {"seeds": list(SEEDS), "networks": ["base", "stage2"]}
    content = {"kind": "table", "title": "T", "caption": "C", "metrics": METRICS, "rows": LINES}
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    Path("experiments").mkdir()
    Path("experiments/t.yaml").write_text(json.dumps(content))
    draw = np.random.default_rng(0)
    for dataset, line, seed in itertools.product(DATASETS, LINES, SEEDS):
        write_scores(run_of(line, dataset, seed), dataset, draw, reverse=line["network"] == "base")
    return load_plan().experiment("t", Table)


def differences(run: str, baseline: str, dataset: str, metric: str) -> list[float]:
    """One run's score less the other's in percent, query by query."""
    one, other = (
        pd.read_parquet(file_of("queries", each, dataset))[metric].to_dict()
        for each in (run, baseline)
    )
    return [100 * (float(one[query]) - float(other[query])) for query in sorted(one)]


def interval(seeds: list[list[float]]) -> tuple[float, float]:
    """The mean and its error over persons and seeds: two-way, with Student's t."""
    number = len(seeds)
    persons = [range(person, QUERIES, PERSONS) for person in range(PERSONS)]
    draw = np.random.default_rng(0)
    draws = []
    for times in draw.multinomial(PERSONS, [1 / PERSONS] * PERSONS, 2000).tolist():
        rows = [
            row for person, many in zip(persons, times, strict=True) for row in many * [*person]
        ]
        draws.append([fmean(seed[row] for row in rows) for seed in seeds])
    columns = list(zip(*draws, strict=True))
    seed_variance = fmean(covariance(column, column) for column in columns)
    pairs = itertools.combinations(columns, 2)
    shared = max(0, fmean(covariance(one, other) for one, other in pairs))
    between = max(variance(map(fmean, seeds)), seed_variance - shared) / number
    freedom = (shared + between) ** 2 / (shared**2 / (PERSONS - 1) + between**2 / (number - 1))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(shared + between)
    mean = fmean(map(fmean, seeds))
    return mean - half, mean + half


def numbers(line: dict[str, Any], dataset: str, metric: str) -> dict[str, float]:
    """Those of a cell in percent, by the columns of a table's CSV; NaN where there is none."""
    runs = [run_of(line, dataset, seed) for seed in SEEDS]
    files = [file_of("scores", run, dataset) for run in runs]
    values = [100 * json.loads(file.read_text())[metric] for file in files]
    paper = line.get("paper", {}).get(dataset, [None] * 3)[METRICS.index(metric)]
    gain, low, high = nan, nan, nan
    if "against" in line:
        baseline = {**line, "network": line["against"]}
        seeds = [
            differences(run, run_of(baseline, dataset, seed), dataset, metric)
            for seed, run in zip(SEEDS, runs, strict=True)
        ]
        gain, (low, high) = fmean(map(fmean, seeds)), interval(seeds)
    return {
        "ours": fmean(values),
        "spread": stdev(values),
        "paper": nan if paper is None else paper,
        "difference": nan if paper is None else fmean(values) - paper,
        "gain": gain,
        "gain_low": low,
        "gain_high": high,
    }


def texts(cell: dict[str, float]) -> list[str]:
    """The columns of a metric on a page."""
    gain = "{gain:+.1f} [{gain_low:+.1f}, {gain_high:+.1f}]".format(**cell)
    return [
        "{ours:.1f} ± {spread:.1f}".format(**cell),
        "–" if math.isnan(cell["gain"]) else gain,
        "–" if math.isnan(cell["paper"]) else f"{cell['paper']:.1f}",
        "–" if math.isnan(cell["paper"]) else f"{cell['difference']:+.1f}",
    ]


@pytest.mark.slow
def test_a_cell_is_of_its_files(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the frame, in the CSV to four digits, and on the page."""
    plan = load_plan()
    frame, section = build_section("t", table, plan, read_results("t", table, plan))
    monkeypatch.setattr(sys, "argv", ["table", "t"])
    stage.main()
    place = ["label", "dataset", "metric"]
    cells = frame.set_index(place)
    csv = pd.read_csv("results/tables/t.csv").set_index(place)
    page = {
        (row.label, panel.dataset): [cell.text for cell in row.cells]
        for panel in section.panels
        for row in panel.rows
    }
    assert set(cells.index) == set(
        itertools.product([x["label"] for x in LINES], DATASETS, METRICS)
    )
    for line, dataset in itertools.product(LINES, DATASETS):
        where = line["label"], dataset
        expected = {metric: numbers(line, dataset, metric) for metric in METRICS}
        for metric, values in expected.items():
            cell, columns = cells.loc[*where, metric], list(values)
            assert cell[columns].to_dict() == pytest.approx(values, abs=1e-5, nan_ok=True)
            line_of_csv = csv.loc[*where, metric][columns].to_dict()
            assert line_of_csv == pytest.approx(values, rel=6e-4, abs=1e-5, nan_ok=True)
            assert cell.runs.split() == [run_of(line, dataset, seed) for seed in SEEDS]
        assert page[where] == [*itertools.chain(*map(texts, expected.values())), "3"]
    markdown = Path("results/tables/t.md").read_text()
    for row in page.values():
        assert all(f"| {text} " in markdown for text in row)


def test_the_tables_of_results_are_of_the_scores_of_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The committed means over the seeds and differences from the paper, to their four digits."""
    monkeypatch.chdir(ROOT)
    tables = [pd.read_csv(path) for path in Path("results/tables").glob("*.csv")]
    cells = pd.concat([table.dropna(subset="runs") for table in tables if "runs" in table])
    assert len(cells) > 100
    for cell in cells.itertuples():
        files = [file_of("scores", run, cell.dataset) for run in cell.runs.split()]
        scores = [json.loads(file.read_text())[cell.metric] for file in files]
        values = [100 * score for score in scores if score is not None]
        ours = fmean(values) if values else nan
        assert cell.ours == pytest.approx(ours, rel=6e-4, nan_ok=True), cell
        assert cell.difference == pytest.approx(ours - cell.paper, rel=6e-4, nan_ok=True), cell
