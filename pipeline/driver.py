"""The driver of one training: it checks, starts the workers, follows them, writes the result."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
)
from ray.train.torch import TorchTrainer

from ianet import network as networks
from ianet.network import Network, NetworkOptions
from ianet.training import Recipe
from pipeline import cluster, tracking
from pipeline.display import Display
from pipeline.plan import Plan, Run, runs_of
from pipeline.settings import RecipeSettings, SettingsError, options
from pipeline.worker import train_on_worker

SCRATCH = Path("build/training")
PROGRESS, BATCHES = "progress.jsonl", "batches.json"  # what the first worker tells, in there
DIGITS = 12  # of a configuration's digest, in the name of its scratch folder


def train(run: Run, plan: Plan, ready: Callable[[], None]) -> None:
    """Train a run and write its folder.

    Args:
        run: which.
        plan: of params.yaml and experiments/.
        ready: waits until Ray is there.

    Raises:
        SettingsError: an option of its network or recipe is wrong, or another process trains it.
        ConnectionError: MLflow does not answer.
    """
    settings = plan.settings
    recipe = settings.recipes[run.recipe]
    network, config = configured(run, settings.networks[run.network], recipe)
    digest = hashlib.sha256(Path(config["table"]).read_bytes())
    digest.update(json.dumps(config, sort_keys=True).encode())
    # A changed configuration never goes on from the weights of an older one.
    name = f"{run.key}-{digest.hexdigest()[:DIGITS]}"
    with alone(run.key):
        with (
            tracking.training(run, digest.hexdigest(), settings, config) as tracked,
            Display(run, runs_of(plan.evaluations()), config["training"]["epochs"]) as display,
        ):

            def log(report: dict[str, float]) -> None:
                display.epoch(report)
                tracked.epoch(report)

            ready()
            last = run_workers(config, name, settings.workers, log, display.part)
            _write(run, restored(network, last), last, digest.hexdigest())
            tracked.model(run)
        # Also what an earlier configuration of this run left behind when it was stopped.
        for scratch in SCRATCH.glob(f"{run.key}-{'[0-9a-f]' * DIGITS}"):
            shutil.rmtree(scratch)


def configured(
    run: Run, network: Mapping[str, Any], recipe: RecipeSettings
) -> tuple[NetworkOptions, dict[str, Any]]:
    """The network's options, and the plain data that a worker trains by.

    Args:
        run: what it is called.
        network, recipe: what these names stand for.

    Raises:
        SettingsError: an option is wrong.
        ValueError: the options contradict each other.
    """
    training = options(Recipe, recipe.training, f"recipes.{run.recipe}.training")
    described = options(NetworkOptions, {**recipe.network, **network}, f"networks.{run.network}")
    Network(2, described)  # a mistake in it is told now, in a second
    return described, {
        "table": str((run.prepared / "table.parquet").resolve()),
        "images": str((run.prepared / f"{recipe.size}.npy").resolve()),
        "hold_out": recipe.hold_out,
        "seed": run.seed,
        "network": asdict(described),
        "training": asdict(training),
    }


def trainer(
    config: dict[str, Any],
    name: str,
    scaling: ScalingConfig,
    *,
    storage: Path,
    score: bool = False,
    callbacks: Sequence[Any] = (),
) -> TorchTrainer:
    """The training of that name, which goes on from its last checkpoint.

    Args:
        config: of `configured`, and "threads", the CPU cores of a worker.
        name: of its folder in `storage`.
        scaling: of `cluster.scaling`.
        storage: an absolute path.
        score: whether each epoch is scored too, on what the worker does not train on.
        callbacks: of Ray Train's controller.
    """
    scratch = storage / name
    scratch.mkdir(parents=True, exist_ok=True)
    return TorchTrainer(
        train_on_worker,
        train_loop_config={
            **config,
            "score": score,
            "progress": str(scratch / PROGRESS),
            "batches": str(scratch / BATCHES),
        },
        scaling_config=scaling,
        run_config=RunConfig(
            name=name,
            storage_path=str(storage),
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            callbacks=list(callbacks),
        ),
    )


def run_workers(
    config: dict[str, Any],
    name: str,
    workers: int | str,
    on_epoch: Callable[[dict[str, float]], None],
    on_part: Callable[[dict[str, float]], None],
) -> dict[str, Any]:
    """Run `train_on_worker` under Ray Train and follow it.

    Args:
        config: of the workers.
        name: of the training; one of the same name goes on from its last checkpoint.
        workers: as in params.yaml.
        on_epoch: told each epoch's report, by the names of `worker.REPORT`.
        on_part: told {"epoch", "done"}, the fraction of the images seen in it, now and then.

    Returns:
        The last checkpoint: "state" of `fit`, and the "history", one report an epoch.
    """
    cluster.check_seen(Path(config["table"]), Path(config["images"]), SCRATCH.resolve())
    scaling, threads = cluster.scaling(workers, alone=cluster.alone())
    training = trainer({**config, "threads": threads}, name, scaling, storage=SCRATCH.resolve())
    done = threading.Event()
    follower = threading.Thread(target=_follow, args=(SCRATCH / name, done, on_epoch, on_part))
    follower.start()
    try:
        result = training.fit()
    finally:
        done.set()
        follower.join()
    return last_of(result)


def last_of(result: Result) -> dict[str, Any]:
    """The last checkpoint of a training, see `run_workers`."""
    assert result.checkpoint is not None  # there is at least one epoch
    with result.checkpoint.as_directory() as folder:
        last: dict[str, Any] = torch.load(Path(folder) / "state.pt", weights_only=True)
    return last


def _follow(
    scratch: Path,
    done: threading.Event,
    on_epoch: Callable[[dict[str, float]], None],
    on_part: Callable[[dict[str, float]], None],
) -> None:
    """Hand on what the first worker writes; an epoch that was repeated after a kill, once."""
    progress, batches = scratch / PROGRESS, scratch / BATCHES
    seen = 0
    while True:
        last = done.wait(0.5)
        for line in progress.read_text().splitlines() if progress.exists() else []:
            report = json.loads(line)
            if report["epoch"] > seen:
                seen = report["epoch"]
                on_epoch(report)
        if last:
            return
        if batches.exists():
            part = json.loads(batches.read_text())
            if part["epoch"] > seen:
                on_part(part)


@contextmanager
def alone(key: str) -> Iterator[None]:
    """Refuse what another process is at already: DVC killed leaves a training running."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with (SCRATCH / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"another process is training {key}: wait for it, or stop it "
                f"(`fuser {SCRATCH / key}.lock` tells which)"
            ) from None
        yield


def restored(options: NetworkOptions, last: dict[str, Any]) -> Network:
    """The network of a last checkpoint."""
    weights = last["state"]["network"]
    network = Network(weights["classifier.weight"].shape[0], options)
    network.load_state_dict(weights)
    return network


def _write(run: Run, network: Network, last: dict[str, Any], digest: str) -> None:
    """runs/<run>, whole or not at all; the digest finds its MLflow run again."""
    part = run.folder.with_name(f".{run.key}.{os.getpid()}")
    part.mkdir(parents=True)
    networks.save(network, part)
    pd.DataFrame(last["history"]).to_csv(part / "history.csv", index=False)
    (part / "digest.txt").write_text(digest)
    shutil.rmtree(run.folder, ignore_errors=True)
    part.replace(run.folder)
