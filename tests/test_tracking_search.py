"""MLflow's records of searches: a run for each, with a child for each trial."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run as Tracked
from mlflow_runs import Sent, metric, tracked

from pipeline.config.experiments import Search
from pipeline.tracking import search, server

SEARCH = Search(
    kind="search",
    title="Sigma",
    caption="Which is best.",
    dataset="synthetic",
    network="base",
    recipe="quick",
    space={"training.lr": {"values": [0.1, 0.2, 0.3]}},
    algorithm="grid",
)
TRIALS: list[dict[str, Any]] = [
    {
        "trial": "lr=0.1",
        "values": {"training.lr": 0.1},
        "history": [
            {"epoch": 1, "loss": 3.0, "accuracy": 0.5, "lr": 0.1, "mAP": 0.25, "top-1": 0.5},
            {"epoch": 2, "loss": 2.0, "accuracy": 0.75, "lr": 0.1, "mAP": 0.5, "top-1": 0.625},
        ],
        "state": "done",
        "error": "",
    },
    {
        "trial": "lr=0.2",
        "values": {"training.lr": 0.2},
        "history": [],
        "state": "failed",
        "error": "IndexError: wrong axis",
        "traceback": "Traceback ...\nIndexError: wrong axis\n",
    },
    {
        "trial": "lr=0.3",
        "values": {"training.lr": 0.3},
        "history": [{"epoch": 1, "loss": 4.0, "accuracy": 0.5, "lr": 0.3}],
        "state": None,
        "error": "",
    },
]


def trials() -> dict[str, Tracked]:
    """The runs of trials, by their names."""
    runs = {run.info.run_name: run for run in tracked()}
    return {name: run for name, run in runs.items() if name and "=" in name}


@pytest.mark.slow
def test_a_search_has_a_child_for_each_trial(tracked_project: Path, sent: Sent) -> None:
    run_id = search.sync_search("sigma", "sigma.01", SEARCH, [], "RUNNING")
    for part in (TRIALS[:1], TRIALS, TRIALS):
        assert search.sync_search("sigma", "sigma.01", SEARCH, part, "RUNNING") == run_id
    children = trials()
    assert sorted(children) == ["lr=0.1", "lr=0.2", "lr=0.3"]
    assert len(tracked()) == 4
    parent = mlflow.get_run(run_id)
    assert parent.info.run_name == "search-sigma"
    assert parent.info.status == "RUNNING"
    assert parent.data.tags["mlflow.note.content"] == "Sigma. Which is best."
    assert parent.data.params["algorithm"] == "grid"
    assert parent.data.params["maximise"] == "mAP"
    assert parent.data.params["space.training.lr"] == "values: [0.1, 0.2, 0.3]"
    assert "space" not in parent.data.params
    assert "title" not in parent.data.params
    for trial in TRIALS:
        run = children[str(trial["trial"])]
        assert run.data.tags["mlflow.parentRunId"] == run_id
        assert run.data.params == {"training.lr": str(trial["values"]["training.lr"])}
        assert run.data.tags.get("state") == trial["state"]
        assert run.data.tags.get("failure", "") == trial["error"]
    states = {name: run.info.status for name, run in children.items()}
    assert states == {"lr=0.1": "FINISHED", "lr=0.2": "FAILED", "lr=0.3": "RUNNING"}
    failed = children["lr=0.2"].info.run_id
    assert mlflow.artifacts.load_text(f"runs:/{failed}/traceback.txt") == TRIALS[1]["traceback"]
    first = children["lr=0.1"].info.run_id
    assert mlflow.MlflowClient().list_artifacts(first) == []
    assert metric(first, "loss") == [(1, 3.0), (2, 2.0)]
    assert metric(first, "held-out_mAP") == [(1, 0.25), (2, 0.5)]
    assert metric(first, "held-out_top_1") == [(1, 0.5), (2, 0.625)]
    assert len(sent) == 2

    rest = {**TRIALS[2], "state": "stopped early"}
    rest["history"] = [*TRIALS[2]["history"], {"epoch": 2, "loss": 3.5, "mAP": 0.125}]
    search.sync_search("sigma", "sigma.01", SEARCH, [*TRIALS[:2], rest], "FINISHED")
    third = trials()["lr=0.3"]
    assert third.data.tags["state"] == "stopped early"
    assert third.info.status == "FINISHED"
    assert metric(third.info.run_id, "loss") == [(1, 4.0), (2, 3.5)]
    assert sent[2:] == [[(2, "loss"), (2, "held-out_mAP")]]
    assert mlflow.get_run(run_id).info.status == "FINISHED"

    again = {**TRIALS[1], "state": "done", "error": ""}  # resumed after its loss
    search.sync_search("sigma", "sigma.01", SEARCH, [again], "FINISHED")
    second = trials()["lr=0.2"]
    assert second.data.tags["state"] == "done"
    assert second.info.status == "FINISHED"
    assert "failure" not in second.data.tags


@pytest.mark.slow
def test_a_trial_of_a_text_with_quotes_has_one_run(tracked_project: Path) -> None:
    named = {**TRIALS[0], "trial": "after={'stage2': {}}"}
    for _ in range(2):
        search.sync_search("sigma", "sigma.01", SEARCH, [named], "RUNNING")
    assert list(trials()) == [named["trial"]]
    assert len(tracked()) == 2


@pytest.mark.slow
def test_another_search_of_that_name_is_another_run(tracked_project: Path) -> None:
    first = search.sync_search("sigma", "sigma.01", SEARCH, TRIALS[:1], "FINISHED")
    second = search.sync_search("sigma", "sigma.02", SEARCH, TRIALS[:1], "RUNNING")
    assert first != second
    parents = [run.data.tags["mlflow.parentRunId"] for run in tracked() if "=" in run.info.run_name]
    assert sorted(parents) == sorted([first, second])


@pytest.mark.slow
def test_the_results_of_a_search_are_sent_once(tracked_project: Path, sent: Sent) -> None:
    folder = Path("results/searches/sigma")
    folder.mkdir(parents=True)
    (folder / "trials.json").write_text(json.dumps(TRIALS))
    test = {"mAP": 0.5, "top-1": 0.75, "top-10": None}
    summary = {"search": "sigma.01", "best": {"training.lr": 0.1}, "test": test}
    summary["cameras"] = "ignore"
    (folder / "scores.json").write_text(json.dumps(summary))
    for _ in range(2):
        search.sync_search_results("sigma", SEARCH, folder)
        [parent] = [run for run in tracked() if run.info.run_name == "search-sigma"]
        assert parent.info.status == "FINISHED"
        assert parent.data.params["best.training.lr"] == "0.1"
        assert parent.data.tags["cameras"] == "ignore"
        assert parent.data.metrics == {"test_mAP": 0.5, "test_top_1": 0.75}
        files = mlflow.MlflowClient().list_artifacts(parent.info.run_id, "search")
        assert [file.path for file in files] == ["search/scores.json", "search/trials.json"]
        assert len(sent) == 3  # two trials with epochs, and the scores
    assert len(trials()) == 3


@pytest.mark.slow
def test_a_search_sends_the_trials_that_changed(tracked_project: Path, sent: Sent) -> None:
    asked: list[str] = []
    find = server.find

    def ask(tags: Mapping[str, str]) -> str | None:
        if "trial" in tags:
            asked.append(tags["trial"])
        return find(tags)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "find", ask)
        with search.open_search_run("sigma", "sigma.01", SEARCH) as recorder:
            recorder.send(TRIALS[:1])
            recorder.send(TRIALS)
            recorder.send(TRIALS)
    assert asked == ["lr=0.1", "lr=0.2", "lr=0.3"]
    assert len(trials()) == 3
    [parent] = [run for run in tracked() if run.info.run_name == "search-sigma"]
    assert parent.info.status == "FINISHED"
