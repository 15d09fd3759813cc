"""The MLflow run of a search, and a child run of each trial."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric, Param

from ianet.escapes import escape_markdown
from pipeline.config.experiments import Search
from pipeline.plan.records import read_search
from pipeline.tracking.recorder import FAILURE, LONGEST, TRACEBACK, Recorder, open_run
from pipeline.tracking.server import (
    NOTE,
    SPLIT_SCORES,
    connect,
    create,
    find,
    metric_name,
    send_epochs,
    send_parameters,
    set_status,
)

TRIAL_METRICS = ("loss", "accuracy", "lr", *SPLIT_SCORES)
PARENT = "mlflow.parentRunId"  # the tag by which MLflow knows a child run


def sync_search(
    name: str, key: str, search: Search, trials: Sequence[Mapping[str, Any]], status: str
) -> str:
    """Send what the server lacks of a search: its run, and a child run for each trial.

    Args:
        name: of the search.
        key: of this search of that name.
        search: what is tried.
        trials: the content of its progress, see `pipeline.search.trial`.
        status: RUNNING, FINISHED, FAILED or KILLED.

    Returns:
        The id of the MLflow run.
    """
    run_id = find({"run": f"search-{name}", "digest": key})
    if run_id is None:
        tags = {
            "run": f"search-{name}",
            "digest": key,
            NOTE: escape_markdown(f"{search.title}. {search.caption}"),
        }
        run_id = create(f"search-{name}", tags)
    send_parameters(run_id, _describe(search))
    for trial in trials:
        _sync_trial(run_id, key, trial)
    set_status(run_id, status)
    return run_id


def _describe(search: Search) -> dict[str, Any]:
    """The options of a search, one by one: `space.training.lr` is `values: [0.1, 0.2]`."""
    options = search.model_dump(mode="json", exclude={"title", "caption", "kind"})
    space: dict[str, dict[str, Any]] = options.pop("space")
    return options | {
        f"space.{option}": ", ".join(f"{kind}: {value}" for kind, value in choices.items())
        for option, choices in space.items()
    }


def _sync_trial(parent: str, key: str, trial: Mapping[str, Any]) -> None:
    client = mlflow.MlflowClient()
    run_id = find({"search": key, "trial": trial["trial"]})
    if run_id is None:
        tags = {"search": key, "trial": trial["trial"], PARENT: parent}
        run_id = create(trial["trial"], tags)
    send_parameters(run_id, trial["values"])
    reports = {int(report["epoch"]): report for report in trial["history"]}
    names = {name: metric_name(name, "held-out") for name in TRIAL_METRICS}
    send_epochs(run_id, reports, names, "loss")
    state = trial["state"]
    tags = client.get_run(run_id).data.tags
    if state is not None and tags.get("state") != state:
        if trial["error"]:
            client.set_tag(run_id, FAILURE, trial["error"][:LONGEST])
        elif FAILURE in tags:  # of a try before this one
            client.delete_tag(run_id, FAILURE)
        if trial.get("traceback"):  # which files of results lack
            client.log_text(run_id, trial["traceback"], TRACEBACK)
        client.set_terminated(run_id, "FAILED" if trial["error"] else "FINISHED")
        client.set_tag(run_id, "state", state)


def sync_search_results(name: str, search: Search, folder: Path) -> None:
    """Send the files of a search that is done, its best values and their scores on test."""
    summary = read_search(folder)
    trials = json.loads((folder / "trials.json").read_text())
    run_id = sync_search(name, summary["search"], search, trials, "FINISHED")
    client = mlflow.MlflowClient()
    if "results" in client.get_run(run_id).data.tags:
        return
    client.log_artifacts(run_id, str(folder), "search")
    params = [Param(f"best.{option}", str(value)) for option, value in summary["best"].items()]
    now = int(time.time() * 1000)
    metrics = [
        Metric(metric_name(score, "test"), value, now, 0)
        for score, value in summary["test"].items()
        if value is not None
    ]
    client.log_batch(run_id, metrics=metrics, params=params)
    client.set_tag(run_id, "cameras", summary["cameras"])
    client.set_tag(run_id, "results", str(folder))


@contextmanager
def open_search_run(name: str, key: str, search: Search) -> Iterator[Recorder]:
    """The MLflow run of a search under way, new or, after a kill, the one that was begun.

    Yields:
        A recorder that takes the progress of all trials.

    Raises:
        ConnectionError: MLflow does not answer.
    """
    connect()
    with open_run(lambda status: sync_search(name, key, search, [], status)):
        sent: dict[str, Any] = {}

        def sync(trials: Sequence[Mapping[str, Any]]) -> None:
            changes = [trial for trial in trials if sent.get(trial["trial"]) != trial]
            sync_search(name, key, search, changes, "RUNNING")
            sent.update({trial["trial"]: trial for trial in changes})

        yield Recorder(sync)
