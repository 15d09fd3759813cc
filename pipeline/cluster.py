"""Ray: every `ray.init`, and every question for what a machine holds.

Imported before `ray`, whose settings are read from the environment at import. What each buys
was measured: see docs/architecture.md.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

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
    # Ray gives its workers the lowest priority: any other process would starve a training.
    "RAY_worker_niceness": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray.train import ScalingConfig  # noqa: E402


def quiet() -> None:
    """In every Ray process: no line for each report, none for the placement-group cleaner."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and "ray/train" in name:
            logger.setLevel(logging.ERROR)
    logging.getLogger(
        "ray.train.v2._internal.execution.controller.placement_group_cleaner"
    ).setLevel(logging.CRITICAL)


@contextmanager
def connected() -> Iterator[None]:
    """Ray, started on this machine."""
    ray.init(
        # Not all cores of the machine, where this process is bound to some of them.
        num_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"worker_process_setup_hook": "pipeline.cluster.quiet"},
    )
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def scaling(workers: int | str) -> tuple[ScalingConfig, int]:
    """Resources of one training: all GPUs, or all cores, shared among its workers.

    Args:
        workers: a number, or "auto" for one for each GPU, or one where there is none.

    Returns:
        For Ray Train, and the CPU cores of a worker.

    Raises:
        ValueError: more workers than GPUs, or than cores where there is no GPU.
    """
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
