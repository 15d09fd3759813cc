"""The MLflow server, its experiment, and how its runs are found."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import textwrap
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow
from filelock import FileLock
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.telemetry import set_telemetry_client

from pipeline.secrecy import hide_secrets

EXPERIMENT = "ianet"
SPLIT_SCORES = ("mAP", "mINP", "top-1", "top-5", "top-10")
BATCH = 900  # metrics of a request; MLflow takes 1000
SQLITE = "sqlite:///"
LOCAL = f"{SQLITE}mlflow.db"
FULL = "database or disk is full"  # SQLite's words
ARTIFACTS = "mlruns"  # MLflow's folder of files beside that database
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""The tables and columns of that database which hold paths of files of runs and models."""

NOTE = "mlflow.note.content"  # the tag that MLflow's pages show as a description, in Markdown
COPIES = "/.dvc/tmp/exps/"  # in which `dvc exp run --temp` and --queue run
INTERFACE = "http://127.0.0.1:5000"  # of `make ui`
VIEW = {
    "orderByKey": "metrics.`test_mAP`",
    "orderByAsc": False,
    "selectedColumns": [
        *(f"metrics.`{metric}`" for metric in ("test_mAP", "test_top_1")),
        *(f"params.`{name}`" for name in ("dataset", "network", "recipe", "seed")),
    ],
}
"""What MLflow's pages show of the experiment: the best run first, in these columns."""

# The first chooses pages of trainings, not of chats. MLflow's button "Share" stores the second.
TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    f"mlflow.sharedViewState.{EXPERIMENT}": json.dumps(VIEW),
}
REFUSALS = (
    "INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST",
)  # fmt: skip
"""Errors of a record; others are of the server or the database."""

SETTINGS = {
    # A call to a server that went away must fail in seconds: the defaults block for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

log = logging.getLogger(__name__)


def connect() -> None:
    """Make MLflow ready, before any work that could be lost.

    Raises:
        ConnectionError: the server of MLFLOW_TRACKING_URI does not answer, or mlflow.db cannot be
            used.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    set_telemetry_client()  # MLflow read the variable when it was imported
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # MLflow's advice on integer columns and on sources.
    warnings.filterwarnings("ignore", module="mlflow")
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip() or LOCAL
    mlflow.set_tracking_uri(uri)
    if uri == LOCAL and COPIES in str(Path.cwd()):
        log.warning(
            "DVC deletes this copy of the project, and mlflow.db with it: set MLFLOW_TRACKING_URI "
            "to a server, or to sqlite:////<path of the project>/mlflow.db, to keep its records"
        )
    database = Path(LOCAL.removeprefix(SQLITE))
    with lock_first_use(Path()), _make_whole(database):
        try:
            record = mlflow.set_experiment(EXPERIMENT)
            for name, value in TAGS.items():
                if record.tags.get(name) != value:
                    mlflow.set_experiment_tag(name, value)
            if uri == LOCAL:
                _mend_locations(str(record.artifact_location))
        except Exception as error:  # a damaged database raises errors of SQLAlchemy
            raise explain_failure(error) from error


@contextmanager
def explain_failures() -> Iterator[None]:
    """Name what MLflow refuses, or why MLflow cannot be used.

    Raises:
        ValueError: MLflow answers, and refuses a record.
        ConnectionError: see `explain_failure`.
    """
    try:
        yield
    except MlflowException as error:
        if error.error_code in REFUSALS:
            raise ValueError(f"MLflow refuses a record ({first_line(error)})") from error
        raise explain_failure(error) from error


def explain_failure(error: Exception) -> ConnectionError:
    """The error of a server or a database that cannot be used, with what to do."""
    uri, reason = mlflow.get_tracking_uri(), first_line(error)
    if FULL in reason and uri.startswith(SQLITE):
        folder = Path(uri.removeprefix(SQLITE)).absolute().parent
        remedy = f"make space in {folder}, and the same command resumes"
    elif uri == LOCAL:
        remedy = "move mlflow.db away, and `make sync` fills a new one"
    else:
        remedy = f"start the server, or unset MLFLOW_TRACKING_URI to log to {LOCAL}"
    return ConnectionError(f"MLflow at {hide_secrets(uri)} cannot be used ({reason}): {remedy}")


@contextmanager
def _make_whole(database: Path) -> Iterator[None]:
    """Delete a database that was not made to its end: MLflow would refuse it."""
    is_new = not database.exists()
    try:
        yield
    except BaseException:
        if is_new:
            database.unlink(missing_ok=True)
        raise


def _mend_locations(artifacts: str) -> None:
    """Let mlflow.db name the files of this folder, after the project was moved or copied.

    MLflow keeps absolute paths, which no public call changes: `mlflow db move-resources` moves
    between workspaces alone. So SQL replaces the old folder in `LOCATIONS`, in one transaction. The
    old folder stays as it is, as do locations outside that folder, such as s3://.

    Args:
        artifacts: where the experiment's files lie by mlflow.db, such as /old/mlruns/1.
    """
    place, here = Path(artifacts.removeprefix("file://")), Path(ARTIFACTS)
    is_ours = place.is_absolute() and place.parent.name == ARTIFACTS
    if not is_ours or place.parent.resolve() == here.resolve():
        return
    old, new = artifacts.removesuffix(place.name), f"{here.absolute()}/"
    with closing(sqlite3.connect(LOCAL.removeprefix(SQLITE))) as database, database:
        for table, column in LOCATIONS:
            database.execute(
                f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
                f"WHERE substr({column}, 1, length(:old)) = :old",
                {"old": old, "new": new},
            )
    is_left = os.access(place, os.R_OK) and not (here / place.name).exists()
    advice = f": copy {place.parent} into this folder" if is_left else ""
    log.info("mlflow.db names files in %s now, in place of %s%s", new, old, advice)


def lock_first_use(project: Path) -> FileLock:
    """Keep other processes of a project from the first use of its MLflow.

    Several processes that meet a new sqlite file at once would break it for good.
    """
    (project / "build").mkdir(exist_ok=True)
    return FileLock(project / "build/mlflow.lock")


def first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return textwrap.shorten(hide_secrets(lines[0]), 500, placeholder=" ...")


def find_experiment() -> str:
    experiment = mlflow.MlflowClient().get_experiment_by_name(EXPERIMENT)
    assert experiment is not None  # `connect` made it
    return str(experiment.experiment_id)


def view_address(server: str) -> str:
    """The address of MLflow's page of all runs, by `VIEW`."""
    options = f"viewStateShareKey={EXPERIMENT}&workflowType=machine_learning"
    return f"{server}/#/experiments/{find_experiment()}/runs?{options}"


def find(tags: Mapping[str, str]) -> str | None:
    """The newest run with these tags, whose values hold one kind of quotes at most."""
    condition = " and ".join(f"tags.`{name}` = {_quote(value)}" for name, value in tags.items())
    runs = mlflow.MlflowClient().search_runs(
        [find_experiment()], condition, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return runs[0].info.run_id if runs else None


def _quote(value: str) -> str:
    return f'"{value}"' if "'" in value else f"'{value}'"


def create(name: str, tags: Mapping[str, str]) -> str:
    """A new run of the experiment; its id."""
    client = mlflow.MlflowClient()
    run = client.create_run(find_experiment(), tags=dict(tags), run_name=name)
    return str(run.info.run_id)


def send_parameters(run_id: str, parameters: Mapping[str, object]) -> bool:
    """Send the parameters of a run that has none, as that of a command that was killed.

    Returns:
        Whether the run had none.
    """
    client = mlflow.MlflowClient()
    if client.get_run(run_id).data.params:
        return False
    client.log_batch(run_id, params=[Param(name, str(parameters[name])) for name in parameters])
    return True


def set_status(run_id: str, status: str) -> None:
    """Set RUNNING, FINISHED, FAILED or KILLED."""
    client = mlflow.MlflowClient()
    if client.get_run(run_id).info.status != status:
        client.set_terminated(run_id, status)


def send_epochs(
    run_id: str, reports: Mapping[int, Mapping[str, Any]], names: Mapping[str, str], guide: str
) -> None:
    """Send the epochs that a run lacks.

    Args:
        run_id: of MLflow.
        reports: by epoch.
        names: of a report's values, to those of metrics.
        guide: the metric whose steps say which epochs the run has.
    """
    client = mlflow.MlflowClient()
    steps = {metric.step for metric in client.get_metric_history(run_id, guide)}
    now = int(time.time() * 1000)
    missing_epochs = [epoch for epoch in reports if epoch not in steps]
    epochs = max(BATCH // max(len(names), 1), 1)  # of a request: an epoch is sent whole or not
    for start in range(0, len(missing_epochs), epochs):
        metrics = [
            Metric(metric, float(reports[epoch][name]), now, epoch)
            for epoch in missing_epochs[start : start + epochs]
            for name, metric in names.items()
            if reports[epoch].get(name) is not None
        ]
        client.log_batch(run_id, metrics=metrics)


def metric_name(name: str, split: str) -> str:
    """The name of a score in MLflow, with the split that was scored."""
    return f"{split}_{name.replace('-', '_')}" if name in SPLIT_SCORES else name
