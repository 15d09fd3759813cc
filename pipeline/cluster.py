"""Ray: every `ray.init`, and every question for what a machine holds.

Imported before `ray`, whose settings are read from the environment at import, or by the processes
that it starts. What each buys was measured: see docs/architecture.md.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
    # Workers started before they are asked for: Ray Train's actors, which have environment
    # variables of their own, cannot use them.
    "RAY_prestart_worker_first_driver": "0",
    # Ray gives its workers the lowest priority: any other process would starve a training.
    "RAY_worker_niceness": "0",
    # glibc keeps, in large pages, what a training step frees. Else it goes back to the kernel, and
    # the next step waits for page faults: 4 to 8 % of a training on a CPU.
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}"
        for name in ("hugetlb=1", f"mmap_threshold={2**32}", f"trim_threshold={2**34}")
    ),
}
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

from pipeline.address import ADDRESS, CLIENT, OURS, alone, elsewhere, is_client  # noqa: E402

if TYPE_CHECKING:
    from ray.train import ScalingConfig

Returned = TypeVar("Returned")
Told = TypeVar("Told")

CODE = (Path(__file__).parent, Path(__file__).parents[1] / "ianet")
LOST = (
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.WorkerCrashedError,
)
MANY = 10_000  # the most that Ray lists
API = "RAY_API_SERVER_ADDRESS"  # of the dashboard, read by Ray's processes


@contextmanager
def starting(*, dashboard: bool = False) -> Iterator[Callable[[], None]]:
    """Ray, while the caller imports, checks and connects: the shared one that RAY_ADDRESS names,
    or one of its own, started on this machine.

    Args:
        dashboard: whether its own Ray has one. Without its API, Ray Train cannot free what a
            trial held that Ray Tune stopped early.

    Yields:
        What waits until Ray is there, to be called in the main thread; it raises what Ray's start
        raised.
    """
    with ThreadPoolExecutor(max_workers=1) as background:
        started = background.submit(_start, dashboard)

        def ready() -> None:
            started.result()
            # Ray's own handler, beneath Python's, would abort and leave its processes behind.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))

        try:
            yield ready
        finally:
            started.exception()  # half started, it could not be shut down
            ray.shutdown()


@contextmanager
def shared() -> Iterator[None]:
    """Ray for the trainings that this process starts, which find it by RAY_ADDRESS: the one that
    this names already, or one on this machine, which ends with this process.
    """
    own = alone()
    with starting() as ready:
        ready()
        try:
            if own:
                os.environ[ADDRESS] = ray.get_runtime_context().gcs_address
                os.environ[OURS] = "1"
            yield
        finally:
            if own:
                os.environ.pop(ADDRESS, None)
                os.environ.pop(OURS, None)


def _start(dashboard: bool) -> None:
    if ADDRESS in os.environ:
        _reach(os.environ[ADDRESS])
    own = alone()
    options: dict[str, Any] = {
        # Without an address Ray would join one that somebody else started on this machine.
        "address": "local" if own else None,
        # A Ray that is there already has its cores, and its dashboard or none.
        "num_cpus": cores() if own else None,
        "include_dashboard": dashboard if own else None,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
    }
    if own and dashboard:
        # Where its API is, Ray would not find out beside another Ray on this machine.
        port = _free_port()
        options["dashboard_port"] = port
        os.environ[API] = f"http://127.0.0.1:{port}"
    if elsewhere():
        # Its nodes have Ray and what it needs, but neither this code nor these settings.
        code = [str(one) for one in CODE]
        options["runtime_env"] = {"py_modules": code, "env_vars": SETTINGS}
    try:
        ray.init(**options)
    except ConnectionError as error:
        raise ConnectionError(
            f"Ray at {os.environ.get(ADDRESS)} does not take this machine in ({error}): has it the "
            "cluster's token, and is RAY_AUTH_MODE=token set? See docs/deploy.md"
        ) from error
    logging.getLogger("ray.train").setLevel(logging.ERROR)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def own_node() -> dict[str, str]:
    """The label by which Ray knows the node on which this runs, or is led from outside."""
    return {"ray.io/node-id": ray.get_runtime_context().get_node_id()}


def free_orphans(seen: Set[str]) -> set[str]:
    """Free what trainings of this process still hold without a worker that lives.

    Ray Train frees it when a training ends, and has a watcher for one that Ray Tune stops early.
    But its controller may ask for new workers before it dies itself: the watcher does not know
    of that, and a search would wait for these cores for ever.

    Args:
        seen: what the last call returned. A training that starts has no worker either, for a
            moment: only what had none then, too, is freed.

    Returns:
        What has none now.
    """
    from ray.util.placement_group import PlacementGroup, remove_placement_group
    from ray.util.state.exception import RayStateApiException

    try:
        orphans = {group for group, lives in _holding().items() if not lives}
    except RayStateApiException:  # busy: the next call will tell
        return set(seen)
    for orphan in orphans & seen:
        remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(orphan)))
    return orphans - seen


def free_all(patience: float = 60) -> None:
    """Free what trainings of this process hold, all of which have ended, or end by themselves
    within so many seconds.
    """
    from ray.util.state.exception import RayStateApiException

    orphans: set[str] = set()
    until = time.monotonic() + patience
    while time.monotonic() < until:
        orphans = free_orphans(orphans)
        with suppress(RayStateApiException):
            if not _holding():
                return
        time.sleep(1)


def _holding() -> dict[str, bool]:
    """The placement groups by which trainings of this process hold cores, by their id, and whether
    a worker of them lives. Raises RayStateApiException where Ray is too busy to tell.
    """
    from ray.util import state  # a tenth of a second that a training need not spend

    job = ray.get_runtime_context().get_job_id()
    groups = state.list_placement_groups(
        filters=[("state", "=", "CREATED"), ("creator_job_id", "=", job)], detail=True, limit=MANY
    )
    actors = state.list_actors(filters=[("state", "!=", "DEAD")], detail=True, limit=MANY)
    living = {actor.placement_group_id for actor in actors}
    return {
        group.placement_group_id: group.placement_group_id in living
        for group in groups
        # A worker has cores; what Ray Tune keeps for the drivers of trials has none.
        if any("CPU" in bundle["unit_resources"] for bundle in group.bundles or [])
    }


def check_seen(*paths: Path) -> None:
    """Refuse paths that a node of the cluster does not see as this process does.

    Raises:
        ValueError: names the node and the first such path.
    """
    nodes = _nodes()
    if len(nodes) == 1 and not is_client():
        return
    remote = ray.remote(num_cpus=0)(_inodes)
    wanted = _inodes(*paths)
    asked = [
        remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*paths)
        for node in nodes
    ]
    for node, inodes in zip(nodes, ray.get(asked), strict=True):
        for path, own, there in zip(paths, wanted, inodes, strict=True):
            if own != there:
                raise ValueError(
                    f"node {node['NodeManagerAddress']} of the Ray cluster does not see {path}: "
                    "put the project on a file system that all nodes share (NFS), under the same "
                    "path, or name a URL as cluster.storage in params.yaml (s3://bucket/folder)"
                )


def within(call: Callable[[], Returned]) -> Returned:
    """Call on the cluster what Ray does for its own nodes only, as a training or a search."""
    if not is_client():
        return call()
    return _remotely(call, **_there())


def followed(
    call: Callable[[Callable[[Told], None]], Returned], take: Callable[[Told], None]
) -> Returned:
    """`within`, of a call that tells what happens, which is taken here, each in its turn."""
    if not is_client():
        return call(take)
    from ray.util.queue import Queue

    told = Queue(actor_options=_there())
    failed: list[Exception] = []  # of `take`, which ends the call

    def follow() -> None:
        while (one := told.get()) is not None:
            try:
                take(one)
            except Exception as error:
                failed.append(error)
                told.shutdown(force=True)
                return

    with ThreadPoolExecutor(max_workers=1) as background:
        try:
            background.submit(follow)
            returned = within(partial(call, told.put))
        except Exception:
            if not failed:
                raise
        finally:
            with suppress(Exception):  # the queue is gone, as `take` failed, or with the cluster
                told.put(None)
    if failed:
        raise failed[0]
    return returned


def _there() -> dict[str, Any]:
    """Options of what is not to be lost with a node that computes: it is on the one by which this
    process reaches the cluster, and costs nothing there.
    """
    reached = NodeAffinitySchedulingStrategy(own_node()["ray.io/node-id"], soft=False)
    return {"num_cpus": 0, "scheduling_strategy": reached}


def claim(name: str, doing: str, ready: Callable[[], None], patience: float = 60) -> None:
    """Hold a name on a cluster as long as this command lives, so that of all commands that use it
    one at a time is at something; those of one folder are told apart by `shell.only_one`.

    Args:
        name: of what is done, the same wherever it is led from.
        doing: told to a user, as "training <run>".
        ready: of `starting`.
        patience: seconds to wait for the name, which Ray gives free half a minute after a command
            on a laptop was killed: until then that might be back.

    Raises:
        ValueError: another command holds it.
    """
    if not elsewhere():
        return
    ready()
    made: Any = ray.remote(_Claim).options(name=name, namespace="ianet", **_there())
    begun: float | None = None
    while True:
        try:
            held = made.remote()
            ray.get(held.__ray_ready__.remote())  # by a laptop it is made at its first call
        except ray.exceptions.ActorAlreadyExistsError:
            if begun is None:
                begun = time.monotonic()
                print(f"another command is {doing}, or was killed: waiting", file=sys.stderr)
            if time.monotonic() - begun > patience:
                raise ValueError(
                    f"another command is {doing}, on this cluster and in this storage: wait for "
                    "it, or stop it"
                ) from None
            time.sleep(1)
        else:
            _claims.append(held)
            return


_claims: list[Any] = []  # which end with their handles, and with the command


class _Claim:
    """Does nothing but live as long as the command that made it."""


def computed(call: Callable[[], Returned], *seen: Path) -> Returned:
    """Call on a node of the cluster, with a GPU where it has any, and its part of the cores.

    Raises:
        ValueError: a node does not see these paths.
    """
    if not ray.is_initialized():
        with starting() as ready:
            ready()
            return computed(call, *seen)
    check_seen(*seen)
    part, threads = scaling(1, alone=False)
    return _remotely(call, num_cpus=threads, num_gpus=1 if part.use_gpu else 0)


def _remotely(call: Callable[[], Returned], **options: Any) -> Returned:
    """Call in a task of Ray with these options.

    Raises:
        ConnectionError: a cluster of which this machine is no node went away.
        OSError: a node or a process of the cluster did.
        Exception: what the call raised.
    """
    # What is called may hold a network: Ray bears that as an object, not within a function, and
    # Ray Client would warn of it as an argument.
    remote: Any = ray.remote(**options)(lambda argument: argument())
    try:
        returned: Returned = ray.get(remote.remote(ray.put(call)))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # its own message would be a traceback
    except LOST as error:
        why = str(error).strip().splitlines()[-1]
        raise OSError(f"Ray lost what it computed ({why}): start the same command again") from error
    except ConnectionError as error:
        why = " ".join(str(error).split())[:200]
        raise ConnectionError(
            f"Ray at {os.environ.get(ADDRESS)} went away ({why}): when that is mended, the same "
            "command goes on"
        ) from error
    return returned


def _inodes(*paths: Path) -> list[int | None]:
    """By which a shared file system knows each file or folder; another of that name has another."""
    return [path.stat().st_ino if path.exists() else None for path in paths]


def cores() -> int:
    """The CPU cores of this machine, or those of them that this process is bound to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _reach(address: str) -> None:
    """Refuse an address at which nothing answers: Ray would try it for ever.

    Raises:
        ConnectionError: with what to do.
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


def _held() -> list[tuple[int, int]]:
    """The GPUs and CPU cores that Ray holds, of each node."""
    every = [node["Resources"] for node in _nodes()]
    return [(int(one.get("GPU", 0)), int(one.get("CPU", 0))) for one in every]


def _places(held: list[tuple[int, int]], cores: int) -> int:
    """How many workers find room with so many cores each, and a GPU where there are any."""
    if any(gpus for gpus, _ in held):
        return sum(min(gpus, own // cores) for gpus, own in held)
    return sum(own // cores for _, own in held)


def drivers(memory: float) -> int:
    """How many drivers of trials, with so many bytes each, Ray holds on this node.

    Raises:
        ValueError: not one.
    """
    [own] = [one for one in _nodes() if one["NodeID"] == own_node()["ray.io/node-id"]]
    held = own["Resources"].get("memory", 0)
    if held < memory:
        raise ValueError(
            f"Ray holds {held / 1e6:.0f} MB of memory on the node of the search, whose trials need "
            f"{memory / 1e6:.0f} MB each there: start Ray with more (`ray start --memory`)"
        )
    return int(held // memory)


def trainings(workers: int | str) -> int:
    """How many trainings of so many workers a shared Ray holds at a time, one at least.

    Args:
        workers: as in params.yaml; "auto" is one.
    """
    return max(_places(_held(), 1) // (1 if workers == "auto" else int(workers)), 1)


def scaling(workers: int | str, *, alone: bool) -> tuple[ScalingConfig, int]:
    """Resources of one training. A worker has a GPU where there are any. One of several trainings
    has its part of the CPU cores, and to a training alone they all go, as far as its workers find
    room on the nodes.

    Args:
        workers: a number, or "auto": one for each GPU, one where there is none or it is not alone.
        alone: whether it is the only training on this Ray.

    Returns:
        For Ray Train, and the CPU cores of a worker.

    Raises:
        ValueError: more workers than GPUs, or than cores where there is no GPU.
    """
    from ray.train import ScalingConfig  # a second that other users of this file need not spend

    held = _held()
    gpus, cores = (sum(numbers) for numbers in zip(*held, strict=True))
    most = _places(held, 1)
    if not most:
        raise ValueError(f"Ray holds {gpus} GPUs and {cores} CPU cores, no place for a worker yet")
    number = ((most if gpus else 1) if alone else 1) if workers == "auto" else int(workers)
    if number > most:
        raise ValueError(
            f"workers is {number}, but Ray holds {gpus} GPUs and {cores} CPU cores: set workers "
            f"in params.yaml to {most} at most, or to auto"
        )
    wanted = number if alone else most
    own = max(each for each in range(1, cores + 1) if _places(held, each) >= wanted)
    each = {"CPU": own, **({"GPU": 1} if gpus else {})}
    config = ScalingConfig(num_workers=number, use_gpu=gpus > 0, resources_per_worker=each)
    return config, own
