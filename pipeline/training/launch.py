"""Lead one training: check, start the workers, follow their progress, write the result.

Nothing here imports torch: a command that leads a training takes little memory.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import (
    BackendConfig,
    Checkpoint,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from pipeline import tracking
from pipeline.cluster import address
from pipeline.cluster.environment import COMPUTING
from pipeline.cluster.lease import Lease
from pipeline.cluster.remote import call_on_cluster, check_visible
from pipeline.cluster.resources import share
from pipeline.cluster.storage import TRAININGS, Storage
from pipeline.config.settings import SettingsError
from pipeline.plan.plan import Plan, unique_runs
from pipeline.plan.runs import RECORD, TABLE, WEIGHTS, Run, prepared_files
from pipeline.shell import emit
from pipeline.training.configuration import DIGITS, Configuration, Place, configure
from pipeline.training.display import Display
from pipeline.training.progress import Follower, Report
from pipeline.training.worker import (
    ENVIRONMENT,
    HISTORY,
    NETWORK,
    train_on_worker,
)

LOSSES = 3  # of its workers, after which a training gives up
LOSSES_ON_CLUSTER = 10  # where nodes come and go

log = logging.getLogger(__name__)


def train(run: Run, plan: Plan, ready: Callable[[], None]) -> None:
    """Train a run and write its folder.

    Args:
        run: which.
        plan: of params.yaml and experiments/.
        ready: of `pipeline.cluster.session.session`.

    Raises:
        SettingsError: an option is wrong, or another command trains this run.
        ValueError: a node of the cluster does not see the data, or Ray holds too little.
        OSError: MLflow, the storage or Ray does not answer, or see `run_workers`.
    """
    settings = plan.settings
    recipe = settings.recipes[run.recipe]
    configuration = configure(run, settings.networks[run.network], recipe)
    digest = configuration.digest(run.prepared / TABLE)
    # The digest in the name: a changed configuration never resumes an older one's weights.
    name = f"{run.key}.{digest[:DIGITS]}"
    storage = Storage(settings.cluster.storage)
    runs = unique_runs(plan.evaluations())
    with (
        Lease(storage, f"{TRAININGS}/{run.key}", f"training {run.key}"),
        Display(run, runs, configuration.recipe.epochs) as display,
    ):
        record = {
            "id": _identify(storage, name),
            "digest": digest,
            "source": str(settings.datasets[run.dataset].source),
            "configuration": configuration.parameters(),
        }
        with tracking.live_training(run, record) as recorder:

            def on_epoch(history: list[Report]) -> None:
                display.show_epoch(history[-1])
                emit("epoch", **history[-1])
                recorder.send(history)

            ready()
            place = find_place(storage, run, configuration, settings.workers)
            result = run_workers(
                configuration, place, name, settings.workers, storage, on_epoch, display.show_part
            )
            write_run(run, result, record)
        storage.delete_folder(TRAININGS, name)


def _identify(storage: Storage, name: str) -> str:
    """The id of a training, the same after a kill."""
    known = storage.read(TRAININGS, name, "id")
    if known is None:
        known = tracking.new_id().encode()
        storage.write(known, TRAININGS, name, "id")
    return known.decode()


def find_place(
    storage: Storage, run: Run, configuration: Configuration, workers: int | str
) -> Place:
    """Where the workers of a training compute and find their data.

    Raises:
        ValueError: a node does not see the data, or Ray holds too little.
        ConnectionError: the storage cannot be used.
    """
    names = prepared_files(configuration.size)
    prepared = storage.share(run.prepared, names)
    if storage.is_folder:
        root = Path(storage.path())
        root.mkdir(parents=True, exist_ok=True)
        check_visible(root, [Path(prepared, name) for name in names])
    threads = share(workers, alone=not address.is_shared()).cpus
    return Place(storage.url, prepared, threads)


def allowed_losses() -> int:
    """How often a training may lose its workers and resume."""
    return LOSSES_ON_CLUSTER if address.is_cluster() else LOSSES


def build_trainer(
    configuration: Configuration,
    place: Place,
    name: str,
    workers: int | str,
    storage: Storage,
) -> DataParallelTrainer:
    """The training of that name under Ray Train, which resumes from its last checkpoint."""
    part = share(workers, alone=not address.is_shared())
    resources = {"CPU": part.cpus, **({"GPU": part.gpus} if part.gpus else {})}
    return DataParallelTrainer(
        train_on_worker,
        train_loop_config={"configuration": configuration, "place": place, "name": name},
        backend_config=_backend(part.workers),
        scaling_config=ScalingConfig(
            num_workers=part.workers, use_gpu=part.gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage.path(TRAININGS),
            storage_filesystem=storage.files,
            failure_config=FailureConfig(allowed_losses()),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            worker_runtime_env={"env_vars": COMPUTING},  # type: ignore[call-arg]
        ),
    )


def _backend(workers: int) -> BackendConfig:
    """Several workers form torch's process group. One needs none, and its leader no torch."""
    if workers == 1:
        return BackendConfig()
    from ray.train.torch import TorchConfig

    return TorchConfig()


@dataclass(frozen=True)
class Result:
    """The result of a training.

    Attributes:
        history: a report of each epoch.
        environment: see `describe_environment`.
        files: the content of the weights file and of the network's description, by name.
    """

    history: list[Report]
    environment: dict[str, Any]
    files: dict[str, bytes]

    def write_network(self, folder: Path) -> None:
        """Write the weights and the description to a folder."""
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def run_workers(
    configuration: Configuration,
    place: Place,
    name: str,
    workers: int | str,
    storage: Storage,
    on_epoch: Callable[[list[Report]], None],
    on_part: Callable[[float], None],
) -> Result:
    """Train under Ray Train, and follow the training.

    Args:
        configuration: what is trained.
        place: of `find_place`.
        name: of the training; one of the same name resumes from its last checkpoint.
        workers: as in params.yaml.
        storage: of checkpoints and progress.
        on_epoch, on_part: see `Follower`.

    Raises:
        SettingsError: a mistake of the user's that a worker found.
        OSError: Ray went away, or its workers failed again and again for a reason that a user can
            mend.
        TrainingFailedError: workers failed again and again for another reason.
    """
    trainer = build_trainer(configuration, place, name, workers, storage)
    follower = Follower(storage, (TRAININGS, name), on_epoch, on_part)
    try:
        fit = wait_for(lambda: call_on_cluster(trainer.fit), follower)
    except TrainingFailedError as error:
        raise _explain(name, error) from error
    except RayActorError as error:
        raise ConnectionError(
            f"Ray lost training {name} ({str(error).splitlines()[-1]}): when Ray is back, the "
            "same command resumes from the last epoch"
        ) from error
    if fit.return_value is not None:
        raise SettingsError(fit.return_value)
    assert fit.checkpoint is not None  # there is at least one epoch
    result = _read_checkpoint(fit.checkpoint)
    follower.take(result.history)
    return result


def wait_for(function: Callable[[], Any], follower: Any) -> Any:
    """Call a function in a thread, and look at its progress until it returns.

    In a thread of its own, Ray Train and Ray Tune leave Ctrl-C to the command. The thread ends
    with the process.

    Raises:
        Exception: what the function raises.
    """
    outcome: dict[str, Any] = {}

    def call() -> None:
        try:
            outcome["value"] = function()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(follower.poll)
        follower.look()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def _explain(name: str, error: TrainingFailedError) -> Exception:
    """A reason that a user can mend, as one line; else the error itself."""
    for failure in getattr(error, "worker_failures", {}).values():
        if isinstance(failure, OSError | ValueError):
            return OSError(f"training {name} failed on its workers, several times: {failure}")
        if isinstance(failure, RayActorError | OutOfMemoryError):
            reason = str(failure).strip().splitlines()[-1]
            return OSError(f"the workers of training {name} died, several times: {reason}")
    return error


def _read_checkpoint(checkpoint: Checkpoint) -> Result:
    with checkpoint.as_directory() as folder:
        path = Path(folder)
        return Result(
            history=json.loads((path / HISTORY).read_text()),
            environment=json.loads((path / ENVIRONMENT).read_text()),
            files={name: (path / name).read_bytes() for name in (WEIGHTS, NETWORK)},
        )


def write_run(run: Run, result: Result, record: dict[str, Any]) -> None:
    """Write runs/<key>, whole or not at all: weights, description, history and record."""
    temporary = run.folder.with_name(f".{run.key}")  # one command at a time writes it
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    result.write_network(temporary)
    pd.DataFrame(result.history).to_csv(temporary / "history.csv", index=False)
    content = {**record, "environment": result.environment}
    (temporary / RECORD).write_text(json.dumps(content, indent=2) + "\n")
    shutil.rmtree(run.folder, ignore_errors=True)
    temporary.replace(run.folder)
