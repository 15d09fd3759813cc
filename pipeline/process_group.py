"""The process group of a training's workers.

Ray Train's controller imports this file before there is a worker, and asks it for a group. It need
not import torch for one worker, which needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.train.backend import Backend, BackendConfig

if TYPE_CHECKING:
    from ray.train._internal.base_worker_group import BaseWorkerGroup
    from ray.train.torch import TorchConfig


class ProcessGroup(BackendConfig):
    """As Ray Train's for torch, where there are several workers."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _ProcessGroup

    @property
    def train_func_context(self) -> Any:
        return _torch().train_func_context  # a worker's own GPU; asked for by the driver


class _ProcessGroup(Backend):
    share_cuda_visible_devices = True

    def on_start(self, worker_group: BaseWorkerGroup, backend_config: BackendConfig) -> None:
        if len(worker_group) > 1:
            _torch().backend_cls().on_start(worker_group, _torch())

    def on_shutdown(self, worker_group: BaseWorkerGroup, backend_config: BackendConfig) -> None:
        if len(worker_group) > 1:
            _torch().backend_cls().on_shutdown(worker_group, _torch())


def _torch() -> TorchConfig:
    from ray.train.torch import TorchConfig  # 2 s

    return TorchConfig()
