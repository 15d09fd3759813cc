"""The MLflow run of a training: epochs, files, model and scores."""

from __future__ import annotations

import hashlib
import io
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

from ianet.escapes import escape_markdown
from ianet.files import digest_file
from pipeline.plan.records import read_history, read_record, read_scores
from pipeline.plan.runs import HISTORY, RECORD, RESULTS, TABLE, Evaluation, Run
from pipeline.tracking.recorder import Recorder, open_run, send_safely
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

SERVED = Path("pipeline/served.py")
MODEL_PACKAGES = (
    "torch", "torchvision", "safetensors", "numpy", "pandas", "pillow", "pyarrow", "scipy",
)  # fmt: skip
"""What `ianet.model` imports; MLflow installs the packages where the model is served."""

BEST = "best"
HELD_OUT_SCORE = metric_name("mAP", "held-out")
NO_METRICS = ("epoch", "seconds")  # of a report: the step, and what images_per_second tells
LONGEST_NOTE = 5000  # characters of a description; MLflow takes 8000


def create_id() -> str:
    """An id for a training or search, by which its MLflow run is found again."""
    return uuid4().hex


def sync_training(
    run: Run, record: Mapping[str, Any], history: Sequence[Mapping[str, float]], status: str
) -> str:
    """Send what the server lacks of a training: run, description, parameters, data set, epochs.

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
    client = mlflow.MlflowClient()
    if NOTE not in client.get_run(run_id).data.tags:
        client.set_tag(run_id, NOTE, _describe(run, configuration["network"]))
    parameters = {
        **run._asdict(),
        **_flat(configuration["network"], "network"),
        **_flat(configuration["recipe"], "training"),
        "hold_out": configuration["hold_out"],
    }
    if send_parameters(run_id, parameters):
        _sync_dataset(run, record, run_id)
    reports = {int(report["epoch"]): report for report in history}
    metrics = [name for name in next(iter(reports.values()), {}) if name not in NO_METRICS]
    send_epochs(run_id, reports, {name: name for name in metrics}, "loss")
    set_status(run_id, status)
    return run_id


def _describe(run: Run, network: Mapping[str, Any]) -> str:
    """What is trained, on what and how, in Markdown."""
    title = (
        f"Network {run.network}, trained on {run.dataset} by recipe {run.recipe} with seed "
        f"{run.seed}. Folder of the model: {run.model}"
    )
    options = [f"{name}: {value}" for name, value in _flat(network, "network").items()]
    lines = [escape_markdown(title), "", *(f"- {escape_markdown(option)}" for option in options)]
    return "\n".join(lines)[:LONGEST_NOTE]


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
    """Options by their places: a nested one has a parameter of its own, as each item of a list."""
    flat: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, list | tuple):
            value = {str(place): item for place, item in enumerate(value)} or value
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}.{name}")
        else:
            flat[f"{prefix}.{name}"] = value
    return flat


def sync_run(run: Run) -> None:
    """Send what the server lacks of a run that was trained: epochs, files, scores and model.

    Raises:
        FileNotFoundError: the run was not trained.
        ValueError: a file of the run or of its scores is damaged.
    """
    record = read_record(run)
    history: list[dict[str, float]] = read_history(run).to_dict("records")  # type: ignore[assignment]
    run_id = sync_training(run, record, history, "FINISHED")
    _sync_files(run, run_id)
    weights = run.weights_digest()
    for folder in sorted(RESULTS.glob("*/scores")):
        evaluation = Evaluation(run, folder.parent.name)
        if evaluation.scores.exists():
            scores = read_scores(evaluation)
            if scores["weights"] == weights:  # else of an earlier training
                _sync_scores(run_id, scores)
    if run.model.exists():
        _sync_model(run, run_id)


def send_run(run: Run) -> None:
    """Send what the server lacks of a run; no failure of MLflow stops the work."""

    def send() -> None:
        connect()
        sync_run(run)

    send_safely(send)


def _sync_files(run: Run, run_id: str) -> None:
    """Send the files with a run's configuration and its epochs."""
    client = mlflow.MlflowClient()
    names = {file.path for file in client.list_artifacts(run_id)}
    for name in (RECORD, HISTORY):
        if name not in names:
            client.log_artifact(run_id, str(run.folder / name))


def _sync_model(run: Run, run_id: str) -> None:
    """Register the run's model by its data set and network, if it is not.

    A model of an earlier training stays out. The alias <recipe>-<seed> is that of the run's last
    training, and `best` that of the version with the best mAP on held-out people.
    """
    client = mlflow.MlflowClient()
    record = client.get_run(run_id)
    name, alias = f"{run.dataset}.{run.network}", f"{run.recipe}-{run.seed}"
    versions = client.search_model_versions(f"name='{name}' and run_id='{run_id}'")
    # A version that a person deleted stays deleted.
    is_complete = not versions or alias in client.get_registered_model(name).aliases
    if "model" in record.data.tags and is_complete:
        return
    # 60 MB, which a command that leads a training need not take.
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec

    from ianet.model import CARD, WEIGHTS

    if digest_file(run.model / WEIGHTS) != run.weights_digest():
        return
    signature = ModelSignature(
        inputs=Schema([ColSpec("binary", "image")]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, -1))]),
    )
    # A process that was killed before it set the tag left a version.
    number = versions[0].version if versions else None
    if number is None:
        with _active(run_id):
            number = mlflow.pyfunc.log_model(
                name="model",
                registered_model_name=name,
                loader_module=SERVED.stem,
                data_path=str(run.model),
                code_paths=["ianet", str(SERVED)],
                # MLflow would find the packages by loading the model in a new process.
                pip_requirements=[f"{name}=={version(name)}" for name in MODEL_PACKAGES],
                signature=signature,
                input_example=_draw_example(),
            ).registered_model_version
    client.update_model_version(name, number, (run.model / CARD).read_text())
    if not client.get_registered_model(name).description:
        description = (
            f"Network {run.network}, trained on {run.dataset}. Each version is of one training, "
            f"and has its model card. Aliases are <recipe>-<seed>, and {BEST} for the best mAP on "
            "held-out people."
        )
        client.update_registered_model(name, escape_markdown(description))
    client.set_registered_model_alias(name, alias, number)
    score = record.data.metrics.get(HELD_OUT_SCORE)
    if score is not None and score > _best_score(name):
        client.set_registered_model_alias(name, BEST, number)
    client.set_tag(run_id, "model", name)  # at last: the model needs nothing more


def _draw_example() -> pd.DataFrame:
    """An input of the served model: a photo of a synthetic person."""
    from PIL import Image

    from ianet.synthetic.portrait import portrait

    pixels, _ = portrait(
        0, facing=0.5, stride=0.3, phase=1, stature=0.85, camera=1, height=128, width=64, seed=0
    )
    photo = io.BytesIO()
    Image.fromarray(pixels).save(photo, "PNG")
    return pd.DataFrame({"image": [photo.getvalue()]})


def _best_score(model: str) -> float:
    """mAP on held-out people of the version with the alias `best`; -1 without one."""
    client = mlflow.MlflowClient()
    aliases = client.get_registered_model(model).aliases
    if BEST not in aliases:
        return -1.0
    best = client.get_model_version_by_alias(model, BEST)
    assert best.run_id is not None  # every version is of a training
    return float(client.get_run(best.run_id).data.metrics[HELD_OUT_SCORE])


def _sync_scores(run_id: str, scores: Mapping[str, Any]) -> None:
    """Send metrics test_mAP, test_top_1, ..., and across domains <data set>_test_mAP, ...

    The tag `cameras`, or <data set>_cameras, says whether a match is from another camera.
    """
    client = mlflow.MlflowClient()
    prefix = f"{scores['on']}_" if scores["on"] != scores["dataset"] else ""
    metrics = {
        f"{prefix}{metric_name(name, scores['split'])}": scores[name]
        for name in (*SPLIT_SCORES, "entropy")
        if scores[name] is not None  # the data set's protocol does not define it
    }
    client.set_tag(run_id, f"{prefix}cameras", scores["cameras"])
    values = client.get_run(run_id).data.metrics
    if all(math.isclose(values.get(name, math.nan), metrics[name]) for name in metrics):
        return
    from ianet import drawing  # half a second that a training need not spend

    client.log_figure(
        run_id, drawing.draw_cmc_curve(scores["cmc"], scores["key"]), f"{prefix}cmc.png"
    )
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
def open_training_run(run: Run, record: Mapping[str, Any]) -> Iterator[Recorder]:
    """The MLflow run of a training under way, new or, after a kill, the one that was begun.

    Args:
        run, record: see `sync_training`.

    Yields:
        A recorder that takes the history of all epochs.

    Raises:
        ConnectionError: MLflow does not answer.
    """
    connect()
    with open_run(lambda status: sync_training(run, record, [], status)):
        yield Recorder(lambda history: sync_training(run, record, history, "RUNNING"))
