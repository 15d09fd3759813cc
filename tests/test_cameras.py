"""The label of a result for which cameras were ignored, from the scores on."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from test_records import RECORD, RUN
from test_search import a_search

from ianet.options import Cameras
from pipeline.config.settings import load
from pipeline.plan.plan import own_evaluation
from pipeline.plan.runs import Run
from pipeline.scoring import Scores
from pipeline.search import results
from pipeline.search.run import SearchResult, _write
from pipeline.stages.evaluate import describe
from pipeline.stages.model import describe_scores

CHOICES: tuple[Cameras, ...] = ("respect", "ignore")


@pytest.mark.parametrize("cameras", CHOICES)
def test_a_model_knows_what_the_file_of_scores_says(
    cameras: Cameras, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Run, "weights_digest", lambda run: "ab")
    own = own_evaluation(RUN)
    for path in (RUN.folder, own.scores.parent, own.queries.parent):
        path.mkdir(parents=True)
    (RUN.folder / "training.json").write_text(json.dumps(RECORD))
    cmc = pd.DataFrame(1.0, [0, 1], range(1, 11))
    queries = pd.DataFrame({"person": [1, 2]})
    scores = Scores(cmc, pd.DataFrame({"mAP": [0.5, 0.5]}), queries, 0, cameras)
    content = describe(own, scores, hold_out=False)
    assert content["cameras"] == cameras
    own.scores.write_text(json.dumps(content))
    queries.assign(**{"top-1": 1.0, "mAP": 0.5}).to_parquet(own.queries)
    described = describe_scores(own)
    assert (described.dataset, described.cameras) == ("synthetic", cameras)


@pytest.mark.parametrize("cameras", CHOICES)
def test_the_files_of_a_search_say_it_and_name_no_path_of_the_machine(
    cameras: Cameras, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan: Any = SimpleNamespace(settings=load())
    monkeypatch.chdir(tmp_path)
    search = a_search(space={"training.lr": {"values": [0.1, 0.2]}}, algorithm="grid", trials=None)
    trials = [
        {
            "trial": f"lr={rate}",
            "id": str(rate),
            "values": {"training.lr": rate},
            "history": [{"epoch": 3, "mAP": rate, "seconds": 1.0}],
            "state": "done",
            "error": "",
        }
        for rate in (0.1, 0.2)
    ]
    texts = {"traceback": 'File "/home/anna/block.py"', "warning": "begins anew: /home/anna/state"}
    progress = [{**trial, **texts} for trial in trials]
    test = {"mAP": 0.5, "mINP": None}
    result = SearchResult(
        "sigma.1", "abc1234", progress, results.table(progress), {"training.lr": 0.2}, test, cameras
    )
    _write("sigma", plan, search, result)
    folder = Path("results/searches/sigma")
    scores = json.loads((folder / "scores.json").read_text())
    assert date.fromisoformat(scores.pop("date")) <= datetime.now(UTC).date()
    assert scores.pop("commit") == "abc1234"
    assert scores == {
        "search": "sigma.1",
        "best": {"training.lr": 0.2},
        "cameras": cameras,
        "test": test,
    }
    assert json.loads((folder / "trials.json").read_text()) == trials
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["recipes"]["quick-best"]["training"]["lr"] == 0.2
