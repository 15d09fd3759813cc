"""The workers of a training: one task of Ray, or several workers of Ray Train.

Ray Train starts four processes of its own for each training, which cost a small run more than its
training. One worker needs no process group. So one worker is a task.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from ray.exceptions import OutOfMemoryError, RayActorError

from pipeline.cluster import address
from pipeline.cluster.remote import LostError, call, call_on_cluster
from pipeline.cluster.storage import TRAININGS, Storage
from pipeline.config.settings import SettingsError
from pipeline.training.configuration import Configuration, Place
from pipeline.training.worker import FAILURE, Result, train_alone, train_together

MOST_LOSSES = 3  # of its workers, after which a training gives up
MOST_LOSSES_ON_CLUSTER = 10  # where nodes come and go
PAUSE, LONGEST_PAUSE = 2, 60  # seconds, after a store that does not answer

log = logging.getLogger(__name__)


def allowed_losses() -> int:
    """How often a training may lose its workers and resume."""
    return MOST_LOSSES_ON_CLUSTER if address.is_cluster() else MOST_LOSSES


def run_one(configuration: Configuration, place: Place, name: str) -> Result:
    """Train with one worker; a worker that is lost is replaced by a new one, which resumes.

    Args:
        configuration, place, name: see `pipeline.training.worker.train`.

    Raises:
        SettingsError: a mistake of the user's that the worker found.
        CodeError: Python code failed, as of a block; another try would fail too.
        OSError: the worker was lost too often, Ray went away, or see `train`.
    """
    function = partial(train_alone, configuration, place, name)
    is_folder = Storage(place.storage).is_folder
    options = {"num_cpus": place.share.cpus, "num_gpus": place.share.gpus, "max_retries": 0}
    losses = 0
    while True:
        try:
            result = call(function, **options)
        except ConnectionError:
            raise
        except OSError as error:
            is_lost = isinstance(error, LostError)
            if is_folder and not is_lost:  # a folder stays as full as it is
                raise
            losses += 1
            if losses > allowed_losses():
                end = "lost its worker" if is_lost else "failed"
                raise OSError(f"training {name} {end} {losses} times: {error}") from error
            log.warning("training %s resumes with a new worker: %s", name, error.__cause__ or error)
            if not is_lost:
                time.sleep(min(PAUSE * 2**losses, LONGEST_PAUSE))  # a store may answer again
        except ValueError as error:
            raise SettingsError(str(error)) from error
        else:
            assert result is not None  # of the first worker
            return result


def run_several(configuration: Configuration, place: Place, name: str) -> Result:
    """Train with several workers under Ray Train, which replaces workers that are lost.

    Args:
        configuration, place, name: see `run_one`.

    Raises:
        SettingsError, OSError: see `run_one`.
        TrainingFailedError: workers failed again and again for another reason.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    from pipeline.training.group import GroupConfig

    storage, part = Storage(place.storage), place.share
    resources = {"CPU": part.cpus, **({"GPU": part.gpus} if part.gpus else {})}
    trainer: Any = TorchTrainer(
        train_together,  # type: ignore[arg-type]  # Ray's types know no returned value
        train_loop_config={"configuration": configuration, "place": place, "name": name},
        torch_config=GroupConfig(),
        scaling_config=ScalingConfig(
            num_workers=part.workers, use_gpu=part.gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage.path(TRAININGS),
            storage_filesystem=storage.files,
            failure_config=FailureConfig(allowed_losses()),
        ),
    )
    storage.delete(TRAININGS, name, FAILURE)
    try:
        outcome = call_on_cluster(lambda: trainer.fit().return_value)
    except TrainingFailedError as error:
        raise _explain(name, error) from error
    except RayActorError as error:
        reason = str(error).splitlines()[-1]
        raise ConnectionError(
            f"Ray lost training {name} ({reason}): when Ray is back, the same command resumes"
        ) from error
    if isinstance(outcome, Exception):
        raise outcome
    result: Result = outcome
    return result


def _explain(name: str, error: Exception) -> Exception:
    """A reason that a user can mend, as one line; else the error itself."""
    for failure in getattr(error, "worker_failures", {}).values():
        if isinstance(failure, OSError):
            return OSError(f"training {name} failed on its workers, several times: {failure}")
        if isinstance(failure, RayActorError | OutOfMemoryError):
            reason = str(failure).strip().splitlines()[-1]
            return OSError(f"the workers of training {name} died, several times: {reason}")
    return error
