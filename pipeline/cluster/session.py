"""The start and the end of this process's use of Ray.

Commands call `pipeline.cluster.environment.prepare` before they import this module.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from pipeline.cluster.address import ADDRESS, CLIENT, LOCAL_RAY, is_cluster, is_shared
from pipeline.cluster.environment import SETTINGS
from pipeline.cluster.resources import cores

ROOT = Path(__file__).parents[2]
CODE = (ROOT / "pipeline", ROOT / "ianet")
RAY_LOGS = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray/session_latest/logs"

log = logging.getLogger(__name__)


@contextmanager
def session(preparation: Callable[[], None] | None = None) -> Iterator[Callable[[], None]]:
    """Ray, started while the caller imports, checks and connects.

    Ray is the one that RAY_ADDRESS names, or one of this process's own on this machine.

    Args:
        preparation: called in a process of Ray as soon as Ray is there, for what comes later.
            Only on this machine: a cluster may have no place for the process yet.

    Yields:
        A function to be called in the main thread. The function returns when Ray is there, and
        raises what Ray's start raised: ConnectionError where a named Ray does not answer.
    """
    with ThreadPoolExecutor(max_workers=1) as background:
        start = background.submit(_start, preparation)

        def ready() -> None:
            reference = start.result()
            if reference is not None:
                ray.get(reference)  # else the next task would start a process of its own
            # Ray's own handler, beneath Python's, would abort and leave its processes behind.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))

        try:
            yield ready
        finally:
            start.exception()  # Ray cannot be shut down half started
            ray.shutdown()


@contextmanager
def open_shared_session() -> Iterator[None]:
    """Ray for the commands that this process starts, which find Ray by RAY_ADDRESS.

    Ray is the one that the variable names, or one on this machine, which ends with this process.
    """
    private = not is_shared()
    with session() as ready:
        ready()
        try:
            if private:
                os.environ[ADDRESS] = ray.get_runtime_context().gcs_address
                os.environ[LOCAL_RAY] = "1"
            yield
        finally:
            if private:
                os.environ.pop(ADDRESS, None)
                os.environ.pop(LOCAL_RAY, None)


def _start(preparation: Callable[[], None] | None) -> ray.ObjectRef[None] | None:
    if is_shared():
        _check_answer(os.environ[ADDRESS])
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not is_shared():
        # Without an address Ray would join one that somebody else started on this machine.
        options |= {"address": "local", "num_cpus": cores(), "include_dashboard": False}
    if is_cluster():
        # Its nodes have Ray and the packages, but neither this code nor these settings.
        options["runtime_env"] = {"py_modules": list(map(str, CODE)), "env_vars": SETTINGS}
    try:
        _init(options)
    except ConnectionError as error:
        raise ConnectionError(
            f"Ray at {os.environ.get(ADDRESS)} does not accept this machine ({error}): has the "
            "machine the cluster's token, and is RAY_AUTH_MODE=token set? See docs/cluster.md"
        ) from error
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    if preparation is None or is_cluster():
        return None
    task: Any = ray.remote(num_cpus=0)(preparation)
    reference: ray.ObjectRef[None] = task.remote()
    return reference


def _init(options: dict[str, Any]) -> None:
    """Start or join Ray; a start that takes too long, as on a busy machine, is tried once more.

    Raises:
        OSError: Ray did not start twice; the message names its logs.
    """
    for last in (False, True):
        try:
            ray.init(**options)
            return
        except (ValueError, ConnectionError):
            raise
        except Exception as error:  # Ray has no type of its own for a start that timed out
            ray.shutdown()
            if last:
                raise OSError(
                    f"Ray did not start ({error}): its logs are in {RAY_LOGS}; start the same "
                    "command when the machine is less busy"
                ) from error
            log.warning("Ray did not start in time: tried once more")


def _check_answer(address: str) -> None:
    """Refuse an address at which nothing answers: Ray would try to connect for ever.

    Raises:
        ConnectionError: the message says what to do.
    """
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not port.isdigit():  # "auto" and "local" are for Ray to find
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray answers at {address} ({error.strerror or error}): start it (`ray start "
            f"--head`), or name none ({ADDRESS}, cluster.address in params.yaml) for one on this "
            "machine"
        ) from error
