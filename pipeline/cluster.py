"""Ray: every `ray.init`, and every question for what a machine holds.

Imported before `ray`, whose settings are read from the environment at import. What each buys
was measured: see docs/architecture.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

for _name, _value in {
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # `train.report` waits for the controller's next look: 1.8 s an epoch at the default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    # Workers stay in the project's root, so that relative paths mean the same everywhere.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Workers started before they are asked for: Ray Train's actors, which have environment
    # variables of their own, cannot use them.
    "RAY_prestart_worker_first_driver": "0",
    # Ray gives its workers the lowest priority: any other process would starve a training.
    "RAY_worker_niceness": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402

if TYPE_CHECKING:
    from ray.train import ScalingConfig


@contextmanager
def starting() -> Iterator[Callable[[], None]]:
    """Ray, started on this machine while the caller imports, checks and connects.

    Yields:
        What waits until Ray is there; it raises what its start raised.
    """
    with ThreadPoolExecutor(max_workers=1) as background:
        started = background.submit(_start)
        try:
            yield started.result
        finally:
            started.exception()  # half started, it could not be shut down
            ray.shutdown()


def _start() -> None:
    ray.init(
        # Not all cores of the machine, where this process is bound to some of them.
        num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logging.getLogger("ray.train").setLevel(logging.ERROR)


def scaling(workers: int | str) -> tuple[ScalingConfig, int]:
    """Resources of one training: all GPUs, or all cores, shared among its workers.

    Args:
        workers: a number, or "auto" for one for each GPU, or one where there is none.

    Returns:
        For Ray Train, and the CPU cores of a worker.

    Raises:
        ValueError: more workers than GPUs, or than cores where there is no GPU.
    """
    from ray.train import ScalingConfig  # a second that other users of this file need not spend

    resources = ray.cluster_resources()
    gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    number = max(gpus, 1) if workers == "auto" else int(workers)
    most = gpus or cores
    if number > most:
        raise ValueError(
            f"workers is {number}, but Ray holds {gpus} GPUs and {cores} CPU cores: set workers "
            f"in params.yaml to {most} at most, or to auto"
        )
    each = {"CPU": max(cores // number, 1), **({"GPU": 1} if gpus else {})}
    config = ScalingConfig(num_workers=number, use_gpu=gpus > 0, resources_per_worker=each)
    return config, each["CPU"]
