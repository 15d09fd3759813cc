"""Variables by which Ray and its processes are set up. `prepare` runs before Ray is imported."""

from __future__ import annotations

import logging
import os
import secrets

from pipeline.cluster import address
from pipeline.config.settings import Settings, SettingsError

log = logging.getLogger(__name__)

MODE = "RAY_AUTH_MODE"  # variable: how Ray tells who may use a cluster
TOKEN = "token"

SETTINGS = {
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
    # A worker for each core, of which a training needs one.
    "RAY_prestart_worker_first_driver": "0",
    # Ray gives its workers the lowest priority: any other process would starve a training.
    "RAY_worker_niceness": "0",
    # Ray Tune's tables and its files beside MLflow and the results of a search.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Seconds of results that a killed search may have to look up again.
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    # glibc keeps, in large pages, what a training step frees. Else the kernel takes it back, and
    # the next step waits for page faults: 4 to 8 % of a training on a CPU.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}"
        for name in ("hugetlb=1", f"mmap_threshold={2**32}", f"trim_threshold={2**34}")
    ),
}
"""For Ray and the processes that it starts, here and on a cluster."""

PRIVATE = {
    # The address of this machine is then 127.0.0.1, and Ray listens there alone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Metrics would be served on every address.
    "RAY_enable_metrics_collection": "0",
    MODE: TOKEN,
    # Workers of torch would listen on the address of the machine's name.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
"""For a Ray of this machine's own."""


def prepare(settings: Settings) -> None:
    """Choose the Ray that params.yaml or RAY_ADDRESS names, and set the variables that are not set.

    Ray reads some of them when it is imported: commands call this before they import Ray.

    Raises:
        SettingsError: a Ray of this machine's own would have no token.
    """
    address.choose(settings)
    _check_mode()
    variables = dict(SETTINGS)
    if not address.is_shared():
        # Without a token here Ray writes one into a file that other users may read.
        variables |= {**PRIVATE, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def _check_mode() -> None:
    """Refuse a Ray of this machine's own without a token, and report a cluster without a token.

    Raises:
        SettingsError: Ray would ask for no token; the message says what to do.
    """
    mode = os.environ.get(MODE)
    if not mode:
        os.environ.pop(MODE, None)  # Ray would take an empty value for "disabled"
    elif mode.lower() != TOKEN:  # the one other mode of Ray is "disabled", by whatever value
        if not address.is_shared():
            raise SettingsError(
                f"{MODE} is {mode}, not {TOKEN}, so anybody on this machine could run code by Ray: "
                "unset the variable"
            )
        log.warning(
            "%s is %s: whoever reaches the cluster's ports runs code on it; only %s asks for a "
            "token",
            *(MODE, mode, TOKEN),
        )
