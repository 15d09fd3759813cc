"""The MLflow run of a training: epochs, model and scores."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from pipeline.plan.runs import RECORD, RESULTS, TABLE, Run
from pipeline.tracking.recorder import Recorder, live
from pipeline.tracking.server import (
    SCORES,
    connect,
    create,
    find,
    metric_name,
    send_epochs,
    send_parameters,
    set_status,
)

MODEL = Path("pipeline/served.py")
MODEL_PACKAGES = ("torch", "torchvision", "safetensors", "numpy", "pandas", "pillow")


def new_id() -> str:
    """An id for a training or search, by which its MLflow run is found again."""
    return uuid4().hex


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
    run_id = find({"id": record["id"]})
    if run_id is None:
        tags = {
            "id": record["id"],
            "run": run.key,
            "digest": record["digest"],
            **{name: str(value) for name, value in run._asdict().items()},
        }
        run_id = create(run.key, tags)
    configuration = record["configuration"]
    parameters = {
        **run._asdict(),
        **_flat(configuration["network"], "network"),
        **_flat(configuration["recipe"], "training"),
        "hold_out": configuration["hold_out"],
    }
    if send_parameters(run_id, parameters):
        _sync_dataset(run, record, run_id)
    reports = {int(report["epoch"]): report for report in history}
    metrics = [name for name in next(iter(reports.values()), {}) if name != "epoch"]
    send_epochs(run_id, reports, {name: name for name in metrics}, "loss")
    set_status(run_id, status)
    return run_id


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
        f"{prefix}{metric_name(name, scores['split'])}": scores[name]
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
    with live(lambda status: sync_training(run, record, [], status)):
        yield Recorder(lambda history: sync_training(run, record, history, "RUNNING"))
