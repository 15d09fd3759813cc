"""The process group of several workers. Its store listens on the address of one node alone.

Ray's own set-up has torch's store listen on all addresses of a machine, and the store asks for no
token. The module is apart from `workers`, as importing it imports torch.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from datetime import timedelta
from typing import Any

import ray
import ray.train
from ray.exceptions import GetTimeoutError
from ray.train.backend import Backend
from ray.train.torch import TorchConfig
from torch import distributed

PATIENCE = 30  # seconds for the workers to leave the group


class GroupConfig(TorchConfig):
    """As of Ray Train's trainer, for a group whose store listens on one address."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _GroupBackend


class _GroupBackend(Backend):
    """The calls of Ray Train at the start and at the end of a group of workers."""

    share_cuda_visible_devices = True  # as of Ray's own: NCCL copies from GPU to GPU

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Make the workers a group.

        Args:
            worker_group: of Ray Train.
            backend_config: a `GroupConfig`.
        """
        kind = "nccl" if worker_group.get_resources_per_worker().get("GPU") else "gloo"
        worker_group.execute(_set_local_variables)
        place = worker_group.execute_single(0, _find_place)
        size = len(worker_group)
        timeout = timedelta(seconds=backend_config.timeout_s)
        ray.get(
            [
                worker_group.execute_single_async(rank, _join, kind, place, rank, size, timeout)
                for rank in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """Let the workers leave the group; those that do not are ended by Ray."""
        with suppress(GetTimeoutError):
            ray.get(worker_group.execute_async(_leave), timeout=PATIENCE)


def _set_local_variables() -> None:
    """Set the variables of a worker on its node.

    By its rank there torch's NCCL finds a GPU. By the number of workers there a training shares the
    node's memory.
    """
    context = ray.train.get_context()
    os.environ["LOCAL_RANK"] = str(context.get_local_rank())
    os.environ["LOCAL_WORLD_SIZE"] = str(context.get_local_world_size())


def _find_place() -> tuple[str, int]:
    """The address of this node, by which Ray reaches the node, and a free port there."""
    address = ray.util.get_node_ip_address()
    with _listen(address, 0) as probe:
        return address, probe.getsockname()[1]


def _join(kind: str, place: tuple[str, int], rank: int, size: int, timeout: timedelta) -> None:
    """Join the group as one worker, of which the first has the store.

    Args:
        kind: "gloo" or "nccl".
        place: address and port of the store.
        rank, size: this worker's number, and how many there are.
        timeout: of each call of the group.
    """
    store = distributed.TCPStore(
        *place,
        size,
        is_master=rank == 0,
        timeout=timeout,
        master_listen_fd=_listen(*place).detach() if rank == 0 else None,
    )
    distributed.init_process_group(kind, store=store, rank=rank, world_size=size, timeout=timeout)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family)
