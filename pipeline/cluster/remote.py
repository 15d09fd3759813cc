"""Calls on the nodes of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.address import ADDRESS, is_client
from pipeline.cluster.resources import live_nodes, share
from pipeline.cluster.session import session
from pipeline.failures import code_errors

Returned = TypeVar("Returned")

LOSS_ERRORS = (
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.TaskUnschedulableError,  # its node is gone
    ray.exceptions.WorkerCrashedError,
)


class LostError(OSError):
    """A process or a node of Ray was lost, with what the process computed."""


def call_on_cluster(function: Callable[[], Returned]) -> Returned:
    """Call what Ray does from one of its own nodes only, such as a training or a search.

    The node is the one by which this process reaches the cluster: what leads is not to be lost
    with a node that computes.

    Raises:
        OSError: the cluster, a node or a process of it was lost.
        Exception: what the function raises.
    """
    if not is_client():
        return function()
    node = ray.get_runtime_context().get_node_id()
    head = NodeAffinitySchedulingStrategy(node, soft=False)
    return call(function, num_cpus=0, scheduling_strategy=head)


def compute(function: Callable[[], Returned], root: Path | None, paths: Sequence[Path]) -> Returned:
    """Call on a node of the cluster, with a GPU where it has any and its share of the cores.

    Args:
        function: what is called.
        root, paths: see `check_visible`; None where nodes read from a URL.

    Raises:
        ValueError: a node does not see these paths.
        CodeError: code of the function failed.
        OSError: as `call_on_cluster`.
    """
    if not ray.is_initialized():
        with session() as ready:
            ready()
            return compute(function, root, paths)
    if root is not None:
        check_visible(root, paths)
    resources = share(1, alone=False)
    task = partial(_name_code, function)
    return call(task, num_cpus=resources.cpus, num_gpus=resources.gpus)


def _name_code(function: Callable[[], Returned]) -> Returned:
    """Call, and name the file and line of code that fails."""
    with code_errors():
        return function()


def call(function: Callable[[], Returned], **options: Any) -> Returned:
    """Call in a process of Ray.

    Args:
        function: what is called.
        options: of `ray.remote`.

    Raises:
        LostError: the process or its node was lost.
        ConnectionError: Ray went away.
        Exception: what the function raises.
    """
    # The function may hold a network. Ray supports that as an object, not within a function, and
    # Ray Client would warn of it as an argument.
    task: Any = ray.remote(**options)(_compute)
    value: Returned = _get(lambda: task.remote(ray.put(function)))
    return value


def _get(start: Callable[[], Any]) -> Any:
    """What tasks return; `start` starts them, and returns their references."""
    try:
        return ray.get(start())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error  # its own message would be a traceback
    except LOSS_ERRORS as error:
        reason = str(error).strip().splitlines()[-1]
        raise LostError(
            f"Ray lost a computation ({reason}): start the same command again"
        ) from error
    except (ConnectionError, ray.exceptions.LocalRayletDiedError) as error:
        reason = " ".join(str(error).split())[:200]
        name = os.environ.get(ADDRESS, "this machine")
        raise ConnectionError(
            f"Ray at {name} went away ({reason}): when Ray is back, the same command resumes"
        ) from error


def _compute(function: Callable[[], Returned]) -> Returned:
    return function()


def check_visible(root: Path, paths: Sequence[Path]) -> None:
    """Refuse a folder or files that a node of the cluster does not see as this process does.

    A random text is written to the folder and read on each node.

    Args:
        root: a folder that all nodes share.
        paths: of files.

    Raises:
        ValueError: the message names the node and the first such path.
        OSError: a node cannot read a path, or was lost meanwhile.
    """
    nodes = live_nodes()
    if len(nodes) == 1 and not is_client():
        return
    mark, text = root / f".visible-{uuid4().hex}", uuid4().hex
    mark.write_text(text)
    try:
        local = _look(mark, paths)
        task: Any = ray.remote(num_cpus=0)(_look)

        def start() -> list[Any]:
            places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
            return [task.options(scheduling_strategy=place).remote(mark, paths) for place in places]

        for node, remote in zip(nodes, _get(start), strict=True):
            for path, here, there in zip((root, *paths), local, remote, strict=True):
                if here != there:
                    raise ValueError(
                        f"node {node['NodeManagerAddress']} of the Ray cluster does not see "
                        f"{path}: put the project on a file system that all nodes share (NFS), "
                        "under the same path, or name a URL as cluster.storage in params.yaml "
                        "(s3://bucket/folder)"
                    )
    finally:
        mark.unlink(missing_ok=True)


def _look(mark: Path, paths: Sequence[Path]) -> list[str | int | None]:
    """The text of a file, None without one, and the sizes of others."""
    text = mark.read_text() if mark.exists() else None
    return [text, *(path.stat().st_size if path.exists() else None for path in paths)]
