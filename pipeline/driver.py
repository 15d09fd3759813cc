"""The driver of one training: it checks, starts the workers, follows them, writes the result."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from ianet import network as networks
from ianet.network import Network, NetworkOptions
from ianet.training import Recipe
from pipeline import address, cluster, tracking
from pipeline.display import Display
from pipeline.plan import TABLE, Plan, Run, files_of, runs_of
from pipeline.process_group import ProcessGroup
from pipeline.settings import RecipeSettings, options
from pipeline.storage import TRAINING, Storage
from pipeline.worker import BATCHES, PROGRESS, train_on_worker

FAILURES = 3
FAILURES_ELSEWHERE = 10  # on a cluster nodes come and go
DIGITS = 12  # of a configuration's digest, in the name of its scratch folder


def train(run: Run, plan: Plan, ready: Callable[[], None]) -> None:
    """Train a run and write its folder.

    Args:
        run: which.
        plan: of params.yaml and experiments/.
        ready: waits until Ray is there.

    Raises:
        SettingsError: an option of its network or recipe is wrong.
        ValueError: another command trains it in the cluster, or a node of that does not see its
            data.
        OSError: MLflow, the storage or Ray does not answer, or see `run_workers`.
    """
    settings = plan.settings
    recipe = settings.recipes[run.recipe]
    network, config = configured(run, settings.networks[run.network], recipe)
    digest = digest_of(run, config)
    # A changed configuration never goes on from the weights of an older one.
    name = f"{run.key}-{digest[:DIGITS]}"
    storage = Storage(settings.cluster.storage)
    cluster.claim(storage.path(TRAINING, run.key), f"training {run.key}", ready)
    with (
        tracking.training(run, digest, settings, config) as tracked,
        Display(run, runs_of(plan.evaluations()), config["training"]["epochs"]) as display,
    ):

        def log(report: dict[str, float]) -> None:
            display.epoch(report)
            tracked.epoch(report)

        ready()
        config = placed(config, run, storage)
        last = run_workers(config, name, settings.workers, storage, log, display.part)
        _write(run, restored(network, last), last, digest)
        tracked.model(run)
    # Also what an earlier configuration of this run left behind when it was stopped.
    storage.clear(TRAINING, rf"{re.escape(run.key)}-[0-9a-f]{{{DIGITS}}}")


def configured(
    run: Run, network: Mapping[str, Any], recipe: RecipeSettings
) -> tuple[NetworkOptions, dict[str, Any]]:
    """The network's options, and the plain data that determines a training.

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
        "size": recipe.size,
        "hold_out": recipe.hold_out,
        "seed": run.seed,
        "network": asdict(described),
        "training": asdict(training),
    }


def digest_of(run: Run, described: Any) -> str:
    """Of the data set's table and of what else determines a result, as plain data."""
    digest = hashlib.sha256((run.prepared / TABLE).read_bytes())
    digest.update(json.dumps(described, sort_keys=True).encode())
    return digest.hexdigest()


def placed(config: Mapping[str, Any], run: Run, storage: Storage) -> dict[str, Any]:
    """A training's configuration, with where each node finds what it needs.

    Raises:
        ValueError: a node does not see it.
        ConnectionError: the storage cannot be used.
    """
    names = files_of(config["size"])
    place = storage.shared(run.prepared, names)
    if storage.is_folder:
        root = Path(storage.path())
        root.mkdir(parents=True, exist_ok=True)
        cluster.check_seen(*(Path(place, name) for name in names), root)
    return {**config, "storage": storage.url, "prepared": place}


def failures() -> int:
    """How often a training that this command leads may lose its workers and go on."""
    return FAILURES_ELSEWHERE if address.elsewhere() else FAILURES


def trainer(
    config: dict[str, Any],
    name: str,
    scaling: ScalingConfig,
    storage: Storage,
    outlives: int,
    *,
    score: bool = False,
    callbacks: Sequence[Any] = (),
) -> Interruptible:
    """The training of that name, which goes on from its last checkpoint.

    Args:
        config: of `placed`, and "threads", the CPU cores of a worker.
        name: of its folder in the storage.
        scaling: of `cluster.scaling`.
        storage: of the checkpoints.
        outlives: losses of its workers, see `failures`.
        score: whether each epoch is scored too, on what the worker does not train on.
        callbacks: of Ray Train's controller.
    """
    return Interruptible(
        train_on_worker,
        train_loop_config={**config, "name": name, "score": score},
        backend_config=ProcessGroup(),
        scaling_config=scaling,
        run_config=RunConfig(
            name=name,
            storage_path=storage.path(TRAINING),
            storage_filesystem=storage.files,
            failure_config=FailureConfig(outlives),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            callbacks=list(callbacks),
        ),
    )


class Interruptible(DataParallelTrainer):
    """A training that Ctrl-C ends as SIGTERM does, and as any stage, by KeyboardInterrupt. Ray
    Train would ask its controller to end, which does not listen while it waits for cores: it would
    go on waiting for them. And one without actors for what it has not: see docs/scale.md.
    """

    controller: ActorHandle | None = None

    def _register_sigint_handler(self, controller: ActorHandle) -> None:
        self.controller = controller

    def _create_default_callbacks(self) -> list[Any]:
        unused: tuple[type, ...] = (DatasetsCallback,)  # of Ray Data
        if not self.run_config.callbacks:
            # It frees the cores of a controller that died. But in a search, Ray does so by itself,
            # as the command ends.
            unused += (PlacementGroupCleanerCallback,)
        made = super()._create_default_callbacks()
        return [one for one in made if not isinstance(one, unused)]

    def fit(self) -> Result:
        """See DataParallelTrainer."""
        try:
            return super().fit()
        except KeyboardInterrupt:
            if self.controller is not None:
                ray.kill(self.controller)
            raise


def run_workers(
    config: dict[str, Any],
    name: str,
    workers: int | str,
    storage: Storage,
    on_epoch: Callable[[dict[str, float]], None],
    on_part: Callable[[dict[str, float]], None],
) -> dict[str, Any]:
    """Run `train_on_worker` under Ray Train and follow it.

    Args:
        config: of `placed`.
        name: of the training; one of the same name goes on from its last checkpoint.
        workers: as in params.yaml.
        storage: of the checkpoints, and of what the workers tell.
        on_epoch: told each epoch's report, by the names of `worker.REPORT`.
        on_part: told {"epoch", "done"}, the fraction of the images seen in it, now and then.

    Returns:
        The last checkpoint: "state" of `fit`, and the "history", one report an epoch.

    Raises:
        OSError: Ray, or its head, went away; or why its workers failed again and again, where
            that is the user's to mend.
    """
    scaling, threads = cluster.scaling(workers, alone=address.alone())
    training = trainer({**config, "threads": threads}, name, scaling, storage, failures())
    done = threading.Event()
    follower = Follower(storage, name, done, on_epoch, on_part)
    follower.start()
    try:
        result = cluster.within(training.fit)
    except TrainingFailedError as error:
        raise _cause(name, error) from error
    except RayActorError as error:
        raise ConnectionError(
            f"Ray lost training {name} ({str(error).splitlines()[-1]}): when that is mended, the "
            "same command goes on from its last epoch"
        ) from error
    finally:
        done.set()
        follower.join()
    last = last_of(result)
    follower.tell(last["history"])
    return last


def _cause(name: str, error: TrainingFailedError) -> Exception:
    """What a user can mend, as one line; else the error itself."""
    for failure in getattr(error, "worker_failures", {}).values():
        if isinstance(failure, OSError | ValueError):
            return OSError(f"training {name} failed on its workers, several times: {failure}")
        if isinstance(failure, RayActorError | OutOfMemoryError):
            why = str(failure).strip().splitlines()[-1]
            return OSError(f"the workers of training {name} died, several times: {why}")
    return error


def last_of(result: Result) -> dict[str, Any]:
    """The last checkpoint of a training, see `run_workers`."""
    assert result.checkpoint is not None  # there is at least one epoch
    with result.checkpoint.as_directory() as folder:
        # Wherever the workers had it: here may be no GPU.
        last: dict[str, Any] = torch.load(
            Path(folder) / "state.pt", map_location="cpu", weights_only=True
        )
    return last


class Follower(threading.Thread):
    """Hands on what the first worker writes; an epoch that was repeated after a kill, once."""

    def __init__(
        self,
        storage: Storage,
        name: str,
        done: threading.Event,
        on_epoch: Callable[[dict[str, float]], None],
        on_part: Callable[[dict[str, float]], None],
    ) -> None:
        """See `run_workers`; `done` ends it."""
        super().__init__()
        self.storage, self.training, self.done = storage, name, done
        self.on_epoch, self.on_part = on_epoch, on_part
        self.told = 0

    def run(self) -> None:
        while not self.done.wait(0.5):
            with suppress(OSError):  # the next look will tell
                self.tell(json.loads(self._read(PROGRESS) or "[]"))
                part = json.loads(self._read(BATCHES) or "{}")
                if part.get("epoch", 0) > self.told:
                    self.on_part(part)

    def _read(self, name: str) -> bytes | None:
        return self.storage.read(TRAINING, self.training, name)

    def tell(self, history: list[dict[str, float]]) -> None:
        """Hand on what of it was not."""
        for report in history[self.told :]:
            self.told += 1
            self.on_epoch(report)


def restored(options: NetworkOptions, last: dict[str, Any]) -> Network:
    """The network of a last checkpoint."""
    weights = last["state"]["network"]
    network = Network(weights["classifier.weight"].shape[0], options)
    network.load_state_dict(weights)
    return network


def _write(run: Run, network: Network, last: dict[str, Any], digest: str) -> None:
    """runs/<run>, whole or not at all; the digest finds its MLflow run again."""
    part = run.folder.with_name(f".{run.key}")  # which one command at a time writes
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    networks.save(network, part)
    pd.DataFrame(last["history"]).to_csv(part / "history.csv", index=False)
    (part / "digest.txt").write_text(digest)
    shutil.rmtree(run.folder, ignore_errors=True)
    part.replace(run.folder)
