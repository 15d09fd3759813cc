"""Lead one training: check, start the workers, follow their progress, write the result.

Nothing here imports torch: a command that leads a training takes little memory.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from ianet.files import build_whole, delete_leftovers
from pipeline.cluster import address
from pipeline.cluster.lease import Lease
from pipeline.cluster.remote import check_visible
from pipeline.cluster.resources import share
from pipeline.cluster.storage import TRAININGS, Storage
from pipeline.commit import find_commit
from pipeline.config.settings import Settings, SettingsError
from pipeline.data.scorable import advise, has_match
from pipeline.data.splits import split_of_run
from pipeline.plan.plan import Plan, unique_runs
from pipeline.plan.records import read_table
from pipeline.plan.runs import HISTORY, RECORD, Run, find_start, prepared_files
from pipeline.plan.sources import Code, weight_files
from pipeline.shell import emit
from pipeline.tracking.training import create_id, open_training_run
from pipeline.training.configuration import KEY_DIGITS, Configuration, Place, configure
from pipeline.training.display import Display
from pipeline.training.progress import Follower, Report
from pipeline.training.worker import Result
from pipeline.training.workers import run_one, run_several

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
    check_parts(run, settings, hold_out=configuration.hold_out)
    digest = _digest(run, configuration)
    # The digest in the name: changed options or code never resume older weights.
    name = f"{run.key}.{digest[:KEY_DIGITS]}"
    storage = Storage(settings.cluster.storage)
    runs = unique_runs(plan.evaluations())
    with (
        Lease(storage, f"{TRAININGS}/{run.key}", f"training {run.key}") as lease,
        Display(run, runs, configuration.recipe.epochs) as display,
    ):
        record = _describe(run, configuration, digest, storage, settings)
        with open_training_run(run, record) as recorder:

            def on_epoch(history: list[Report]) -> None:
                display.show_epoch(history[-1])
                emit("epoch", **history[-1])
                recorder.send(history)

            ready()
            place = find_place(storage, run, configuration, settings)
            result = run_workers(configuration, place, name, on_epoch, display.show_part)
            lease.confirm()
            write_run(run, result, record)
        lease.confirm()
        storage.delete_folder(TRAININGS, name)


def check_parts(run: Run, settings: Settings, *, hold_out: bool) -> None:
    """Refuse a data set without a training image, or held-out identities that cannot be scored.

    Raises:
        SettingsError: the message says what to do.
    """
    dataset = settings.datasets[run.dataset]
    table = read_table(run.prepared)
    splits = split_of_run(table, run.seed, hold_out=hold_out)
    if not (splits == "train").any():
        raise SettingsError(
            f"{run.dataset} has no image in train: score networks of another data set on it, by "
            "`trained_on` of a row"
        )
    if hold_out and not has_match(table, splits, cameras=dataset.cameras):
        raise SettingsError(advise(run.dataset, dataset.held_out))


def record_failure(run: Run, plan: Plan, error: Exception) -> NoReturn:
    """Raise the error of a run whose network fails, which MLflow then shows."""
    settings = plan.settings
    configuration = configure(run, settings.networks[run.network], settings.recipes[run.recipe])
    digest = _digest(run, configuration)
    record = _describe(run, configuration, digest, Storage(settings.cluster.storage), settings)
    with open_training_run(run, record):
        raise error


def _digest(run: Run, configuration: Configuration) -> str:
    code = Code().digest_training(asdict(configuration.network))
    return configuration.digest(run.prepared, code)


def _describe(
    run: Run, configuration: Configuration, digest: str, storage: Storage, settings: Settings
) -> dict[str, Any]:
    """What training.json holds before the training."""
    return {
        "id": _identify(storage, f"{run.key}.{digest[:KEY_DIGITS]}"),
        "digest": digest,
        "source": str(settings.datasets[run.dataset].source),
        "configuration": configuration.parameters(),
        "commit": find_commit(),
    }


def _identify(storage: Storage, name: str) -> str:
    """The id of a training, the same after a kill."""
    content = storage.read(TRAININGS, name, "id")
    if content is None:
        content = create_id().encode()
        storage.write(content, TRAININGS, name, "id")
    return content.decode()


def find_place(
    storage: Storage, run: Run, configuration: Configuration, settings: Settings
) -> Place:
    """Where the workers of a training compute and find their data.

    Raises:
        ValueError: a node does not see the data, or Ray holds too little.
        FileNotFoundError: the file of initial weights is missing.
        ConnectionError: the storage cannot be used.
    """
    names = prepared_files(configuration.size)
    prepared = storage.publish(run.prepared, names)
    paths = [Path(prepared, name) for name in names]
    weights: tuple[str, str] | None = None
    for file in weight_files(asdict(configuration.network)):
        if not file.is_file():
            key = find_start(str(file))
            advice = f": `dvc repro model@{key}` makes it" if key else ""
            raise FileNotFoundError(
                f"the weights file {file} of network {run.network} is missing{advice}"
            )
        weights = (storage.publish(file.parent, [file.name]), file.name)
        paths.append(Path(*weights))
    if storage.is_folder:
        root = Path(storage.path())
        root.mkdir(parents=True, exist_ok=True)
        check_visible(root, paths)
    part = share(settings.workers, alone=not address.is_shared())
    return Place(storage.url, prepared, part, settings.checkpoint_minutes, weights)


def run_workers(
    configuration: Configuration,
    place: Place,
    name: str,
    on_epoch: Callable[[list[Report]], None],
    on_part: Callable[[float], None],
) -> Result:
    """Train, and follow the training.

    Args:
        configuration: what is trained.
        place: of `find_place`.
        name: of the training; one of the same name resumes from its last checkpoint.
        on_epoch, on_part: see `Follower`.

    Raises:
        SettingsError: a mistake of the user's that a worker found.
        OSError: Ray went away, its workers were lost too often, or the storage cannot be used.
        TrainingFailedError: several workers failed again and again for another reason.
    """
    follower = Follower(Storage(place.storage), (TRAININGS, name), on_epoch, on_part)
    run = run_one if place.share.workers == 1 else run_several
    result: Result = wait_for(lambda: run(configuration, place, name), follower)
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


def write_run(run: Run, result: Result, record: dict[str, Any]) -> None:
    """Write runs/<key>, whole or not at all: weights, description, history and record."""
    content = {
        **record,
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        "environment": result.environment,
    }
    delete_leftovers(run.folder)
    with build_whole(run.folder) as temporary:
        temporary.mkdir()
        result.write_network(temporary)
        pd.DataFrame(result.history).to_csv(temporary / HISTORY, index=False)
        (temporary / RECORD).write_text(json.dumps(content, indent=2) + "\n")
        shutil.rmtree(run.folder, ignore_errors=True)
