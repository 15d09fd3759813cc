"""Every MLflow call: what MLflow lacks of a training, an evaluation or a search is sent.

The files of a run are the truth, and MLflow shows them. Each `sync_...` function reads files, asks
the server what it holds, and sends the rest. So the functions may be called at any time, again and
again: by a training after each epoch, by a stage at its end, or by a person (`pipeline.sync`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import pandas as pd
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException

from pipeline.config.experiments import Search
from pipeline.plan.runs import RECORD, RESULTS, TABLE, Run

EXPERIMENT = "ianet"
SCORES = ("mAP", "mINP", "top-1", "top-5", "top-10")
TRIAL_METRICS = ("loss", "accuracy", "lr", *SCORES)
PAUSE = 10  # seconds from a call that failed to the next
BATCH = 900  # metrics of a request; MLflow takes 1000
LOCAL = "sqlite:///mlflow.db"
INTERFACE = "http://127.0.0.1:5000"  # of `make ui`
MODEL = Path("pipeline/served.py")
MODEL_PACKAGES = ("torch", "torchvision", "safetensors", "numpy", "pandas", "pillow")
REPRODUCTION = "reproduction"
PARENT = "mlflow.parentRunId"  # the tag by which MLflow knows a child run
SETTINGS = {
    # A call to a server that went away must fail in seconds: the defaults block for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

log = logging.getLogger(__name__)


def new_id() -> str:
    """An id for a training or search, by which its MLflow run is found again."""
    return uuid4().hex


def connect() -> None:
    """Make MLflow ready, before any work that could be lost.

    Raises:
        ConnectionError: the server of MLFLOW_TRACKING_URI does not answer.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # MLflow's advice on integer columns and on sources.
    warnings.filterwarnings("ignore", module="mlflow")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or LOCAL
    mlflow.set_tracking_uri(uri)
    with first_use(Path()):
        try:
            mlflow.set_experiment(EXPERIMENT)
        except MlflowException as error:
            raise ConnectionError(
                f"MLflow at {uri} cannot be used ({_first_line(error)}): start the server, or "
                f"unset MLFLOW_TRACKING_URI to log to {LOCAL}"
            ) from error


def first_use(project: Path) -> FileLock:
    """Keep other processes of a project from the first use of its MLflow.

    Several processes that meet a new sqlite file at once would break it for good.
    """
    (project / "build").mkdir(exist_ok=True)
    return FileLock(project / "build/mlflow.lock")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:200]


# Trainings and their evaluations.


def sync_training(
    run: Run, record: Mapping[str, Any], history: Sequence[Mapping[str, float]], status: str
) -> str:
    """Send what the server lacks of a training: its run, parameters, data set and epochs.

    Args:
        run: which.
        record: the content of its training.json: id, digest, source and configuration.
        history: a report of each epoch that is done.
        status: RUNNING, FINISHED, FAILED or KILLED.

    Returns:
        The id of the MLflow run.
    """
    client = mlflow.MlflowClient()
    run_id = _find({"id": record["id"]})
    if run_id is None:
        tags = {
            "id": record["id"],
            "run": run.key,
            "digest": record["digest"],
            **{name: str(value) for name, value in run._asdict().items()},
        }
        run_id = client.create_run(_experiment(), tags=tags, run_name=run.key).info.run_id
        configuration = record["configuration"]
        parameters = {
            **run._asdict(),
            **_flat(configuration["network"], "network"),
            **_flat(configuration["recipe"], "training"),
            "hold_out": configuration["hold_out"],
        }
        client.log_batch(run_id, params=[Param(name, str(parameters[name])) for name in parameters])
        _sync_dataset(run, record, run_id)
    reports = {int(report["epoch"]): report for report in history}
    metrics = [name for name in next(iter(reports.values()), {}) if name != "epoch"]
    _send_epochs(run_id, reports, {name: name for name in metrics}, "loss")
    if client.get_run(run_id).info.status != status:
        client.set_terminated(run_id, status)
    return str(run_id)


def _sync_dataset(run: Run, record: Mapping[str, Any], run_id: str) -> None:
    """Say which data a run was trained on; nothing where the data set is not prepared here."""
    table = run.prepared / TABLE
    if table.exists():
        dataset = Dataset(
            name=run.dataset,
            digest=hashlib.sha256(table.read_bytes()).hexdigest()[:8],
            source_type="local",
            source=json.dumps({"uri": record["source"]}),
        )
        context = InputTag("mlflow.data.context", "training")
        mlflow.MlflowClient().log_inputs(run_id, datasets=[DatasetInput(dataset, [context])])


def _flat(options: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Options by their places: a nested one has a parameter of its own."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}.{name}")
        else:
            flat[f"{prefix}.{name}"] = value
    return flat


def _send_epochs(
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
    known = {metric.step for metric in client.get_metric_history(run_id, guide)}
    now = int(time.time() * 1000)
    lacking = [epoch for epoch in reports if epoch not in known]
    epochs = max(BATCH // max(len(names), 1), 1)  # of a request: an epoch is sent whole or not
    for start in range(0, len(lacking), epochs):
        metrics = [
            Metric(metric, float(reports[epoch][name]), now, epoch)
            for epoch in lacking[start : start + epochs]
            for name, metric in names.items()
            if reports[epoch].get(name) is not None
        ]
        client.log_batch(run_id, metrics=metrics)


def sync_run(run: Run) -> None:
    """Send what the server lacks of a run that was trained: epochs, model and scores.

    Raises:
        FileNotFoundError: the run was not trained.
    """
    record = json.loads((run.folder / RECORD).read_text())
    frame = pd.read_csv(run.folder / "history.csv")
    history: list[dict[str, float]] = frame.to_dict("records")  # type: ignore[assignment]
    run_id = sync_training(run, record, history, "FINISHED")
    _sync_model(run, run_id)
    weights = run.weights_digest()
    for path in sorted(RESULTS.glob(f"*/scores/{run.key}*.json")):
        scores = json.loads(path.read_text())
        if scores["weights"] == weights:  # else of an earlier training
            _sync_scores(run_id, scores)


def _sync_model(run: Run, run_id: str) -> None:
    """Register the trained run by its data set and network, if it is not."""
    client = mlflow.MlflowClient()
    if "model" in client.get_run(run_id).data.tags:
        return
    # 60 MB, which a command that leads a training need not take.
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
    )
    with _active(run_id):
        mlflow.pyfunc.log_model(
            name="model",
            registered_model_name=f"{run.dataset}.{run.network}",
            loader_module=MODEL.stem,
            data_path=str(run.folder),
            code_paths=["ianet", str(MODEL)],
            # MLflow would find the packages by loading the model in a new process.
            pip_requirements=[f"{name}=={version(name)}" for name in MODEL_PACKAGES],
            signature=signature,
        )
    client.set_tag(run_id, "model", f"{run.dataset}.{run.network}")


def _sync_scores(run_id: str, scores: Mapping[str, Any]) -> None:
    """Send metrics test_mAP, test_top_1, ..., and across domains <data set>_test_mAP, ..."""
    client = mlflow.MlflowClient()
    prefix = f"{scores['on']}_" if scores["on"] != scores["dataset"] else ""
    metrics = {
        f"{prefix}{_metric(name, scores['split'])}": scores[name]
        for name in (*SCORES, "entropy")
        if scores[name] is not None  # the data set's protocol does not define it
    }
    held = client.get_run(run_id).data.metrics
    if all(math.isclose(held.get(name, math.nan), metrics[name]) for name in metrics):
        return
    from ianet import drawing  # half a second that a training need not spend

    client.log_figure(run_id, drawing.cmc_curve(scores["cmc"], scores["key"]), f"{prefix}cmc.png")
    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(name, metrics[name], now, 0) for name in metrics])


def _metric(name: str, split: str) -> str:
    """The name of a score in MLflow, with the split that was scored."""
    return f"{split}_{name.replace('-', '_')}" if name in SCORES else name


class Recorder:
    """Sends what happens, and lets no failure of MLflow stop the work."""

    def __init__(self, sync: Callable[[Any], object]) -> None:
        """`sync`: sends what the server lacks of a content."""
        self.sync = sync
        self.failed = -math.inf  # when the last call did

    def send(self, content: Any) -> None:
        """Send a content, unless a call failed a moment ago: the next one sends all."""
        if time.monotonic() - self.failed > PAUSE:
            self.send_now(content)

    def send_now(self, content: Any) -> None:
        """Send a content."""
        try:
            self.sync(content)
        except Exception as error:  # whatever MLflow raises, the training is worth more
            if self.failed == -math.inf:
                log.warning(
                    "MLflow went away (%s): all results are on disk, and `python -m "
                    "pipeline.sync` sends them",
                    _first_line(error),
                )
            self.failed = time.monotonic()


@contextmanager
def live_training(run: Run, record: Mapping[str, Any]) -> Iterator[Recorder]:
    """The MLflow run of a training under way, new or, after a kill, the one that was begun.

    Args:
        run, record: see `sync_training`.

    Yields:
        A recorder that takes the history of all epochs.

    Raises:
        ConnectionError: MLflow does not answer.
    """
    connect()
    with _live(lambda status: sync_training(run, record, [], status)):
        yield Recorder(lambda history: sync_training(run, record, history, "RUNNING"))


@contextmanager
def _live(sync: Callable[[str], str]) -> Iterator[None]:
    """An MLflow run that records the machine's load, and how the work ends."""
    mlflow.set_system_metrics_sampling_interval(5)
    mlflow.start_run(run_id=sync("RUNNING"), log_system_metrics=True)
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with suppress(Exception):  # MLflow went away
            mlflow.end_run(status)


@contextmanager
def _active(run_id: str) -> Iterator[None]:
    """A run as the active one, which MLflow wants for models and inputs."""
    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        yield
        return
    status = mlflow.MlflowClient().get_run(run_id).info.status
    with mlflow.start_run(run_id=run_id):
        yield
    mlflow.MlflowClient().set_terminated(run_id, status)


# Searches.


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
    client = mlflow.MlflowClient()
    run_id = _find({"run": f"search-{name}", "digest": key})
    if run_id is None:
        tags = {
            "run": f"search-{name}",
            "digest": key,
            "mlflow.note.content": f"{search.title}. {search.caption}",
        }
        described = search.model_dump(mode="json", exclude={"title", "caption", "kind"})
        created = client.create_run(_experiment(), tags=tags, run_name=f"search-{name}")
        run_id = created.info.run_id
        params = [Param(option, str(value)) for option, value in described.items()]
        client.log_batch(run_id, params=params)
    for trial in trials:
        _sync_trial(run_id, key, trial)
    if client.get_run(run_id).info.status != status:
        client.set_terminated(run_id, status)
    return str(run_id)


def _sync_trial(parent: str, key: str, trial: Mapping[str, Any]) -> None:
    client = mlflow.MlflowClient()
    run_id = _find({"search": key, "trial": trial["trial"]})
    if run_id is None:
        tags = {"search": key, "trial": trial["trial"], PARENT: parent}
        created = client.create_run(_experiment(), tags=tags, run_name=trial["trial"])
        run_id = created.info.run_id
        params = [Param(option, str(value)) for option, value in trial["values"].items()]
        client.log_batch(run_id, params=params)
    reports = {int(report["epoch"]): report for report in trial["history"]}
    names = {name: _metric(name, "held-out") for name in TRIAL_METRICS}
    _send_epochs(run_id, reports, names, "loss")
    state = trial["state"]
    if state is not None and client.get_run(run_id).data.tags.get("state") != state:
        client.set_tag(run_id, "state", state)
        if trial["error"]:
            client.set_tag(run_id, "error", trial["error"])
        client.set_terminated(run_id, "FAILED" if trial["error"] else "FINISHED")


def sync_search_results(name: str, search: Search, folder: Path) -> None:
    """Send the files of a search that is done, its best values and their scores on test."""
    summary = json.loads((folder / "scores.json").read_text())
    trials = json.loads((folder / "trials.json").read_text())
    run_id = sync_search(name, summary["search"], search, trials, "FINISHED")
    client = mlflow.MlflowClient()
    if "results" in client.get_run(run_id).data.tags:
        return
    client.log_artifacts(run_id, str(folder), "search")
    params = [Param(f"best.{option}", str(value)) for option, value in summary["best"].items()]
    now = int(time.time() * 1000)
    metrics = [
        Metric(_metric(score, "test"), value, now, 0)
        for score, value in summary["test"].items()
        if value is not None
    ]
    client.log_batch(run_id, metrics=metrics, params=params)
    client.set_tag(run_id, "results", str(folder))


@contextmanager
def live_search(name: str, key: str, search: Search) -> Iterator[Recorder]:
    """The MLflow run of a search under way, new or, after a kill, the one that was begun.

    Yields:
        A recorder that takes the progress of all trials.

    Raises:
        ConnectionError: MLflow does not answer.
    """
    connect()
    with _live(lambda status: sync_search(name, key, search, [], status)):
        sent: dict[str, Any] = {}

        def sync(trials: Sequence[Mapping[str, Any]]) -> None:
            changed = [trial for trial in trials if sent.get(trial["trial"]) != trial]
            sync_search(name, key, search, changed, "RUNNING")
            sent.update({trial["trial"]: trial for trial in changed})

        yield Recorder(sync)


# The whole reproduction.


def run_pages(runs: Sequence[Run]) -> dict[Run, str]:
    """The page of each run that MLflow holds; none where MLflow does not answer."""
    try:
        connect()
        uri = mlflow.get_tracking_uri()
        root = uri if uri.startswith("http") else INTERFACE
        pages = {}
        for run in runs:
            run_id = _find({"id": json.loads((run.folder / RECORD).read_text())["id"]})
            if run_id is not None:
                pages[run] = f"{root}/#/experiments/{_experiment()}/runs/{run_id}"
        return pages
    except (MlflowException, ConnectionError) as error:
        log.warning("MLflow does not answer (%s): the page links to no run", _first_line(error))
        return {}


def sync_reproduction(rows: Mapping[Run, Mapping[str, str]]) -> None:
    """Send all results to the one MLflow run of the reproduction, and tag runs with their tables.

    Args:
        rows: for each run of the plan, the tables that name it, with the label of its row.
    """
    connect()
    client = mlflow.MlflowClient()
    for run, tables in rows.items():
        record = json.loads((run.folder / RECORD).read_text())
        run_id = _find({"id": record["id"]})
        if run_id is None:
            continue
        tags = client.get_run(run_id).data.tags
        for table, label in tables.items():
            if tags.get(f"table.{table}") != label:
                client.set_tag(run_id, f"table.{table}", label)
    run_id = _find({"run": REPRODUCTION})
    if run_id is None:
        tags = {"run": REPRODUCTION}
        created = client.create_run(_experiment(), tags=tags, run_name=REPRODUCTION)
        run_id = created.info.run_id
    client.log_artifacts(run_id, str(RESULTS), RESULTS.name)
    client.set_terminated(run_id, "FINISHED")


def _experiment() -> str:
    experiment = mlflow.MlflowClient().get_experiment_by_name(EXPERIMENT)
    assert experiment is not None  # `connect` made it
    return str(experiment.experiment_id)


def _find(tags: Mapping[str, str]) -> str | None:
    """The newest run with these tags."""
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    runs = mlflow.MlflowClient().search_runs(
        [_experiment()], wanted, max_results=1, order_by=["attributes.start_time DESC"]
    )
    return runs[0].info.run_id if runs else None
