"""The list of trainings of benchmarks/market1501.py, and what is kept of each."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from pipeline.config.settings import load

ROOT = Path(__file__).parents[1]


@pytest.fixture
def market1501(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("market1501")


def test_the_schedule_is_scaled_with_the_epochs(market1501: ModuleType) -> None:
    settings = load()
    recipes = []
    for run in market1501.RUNS:
        network, recipe = market1501.configure(run, settings, "none")
        assert (network.backbone, recipe.epochs) == (run.backbone, 60)
        recipes.append(recipe)
    assert len(recipes) == 19
    assert (recipes[0].milestones, recipes[0].warm_up) == ((20, 40), 0)
    assert (recipes[3].milestones, recipes[3].warm_up) == ((20, 35), 5)
    assert (recipes[5].milestones, recipes[5].height) == ((24, 45), 128)
    assert [number for number, recipe in enumerate(recipes, 1) if recipe.block_lr] == [
        *(9, 10, 11),
        *(15, 16),
    ]
    _, short = market1501.configure(market1501.RUNS[3]._replace(epochs=2), settings, "none")
    assert (short.epochs, short.milestones, short.warm_up) == (2, (1,), 0)


def test_a_result_replaces_scores_without_a_line(market1501: ModuleType, tmp_path: Path) -> None:
    """A run may end between the scores and their line."""
    output = tmp_path / "results.jsonl"
    pd.DataFrame({"first_rank": [7, 8], "run": ["a", "b"]}).to_parquet(tmp_path / "results.parquet")
    for name, rank in (("b", 1), ("c", 2)):
        market1501.write(output, {"run": name}, pd.DataFrame({"first_rank": [rank]}))
    assert [json.loads(line) for line in output.read_text().splitlines()] == [
        {"run": "b"},
        {"run": "c"},
    ]
    scores = pd.read_parquet(tmp_path / "results.parquet")
    assert scores.to_numpy().tolist() == [[7, "a"], [1, "b"], [2, "c"]]
