"""The end of a training whose loss is not finite."""

from __future__ import annotations

import torch
from torch import Tensor, distributed

INTERVALS = {"cpu": 1}  # steps from check to check
LATE = 100  # of a GPU, for which Python waits at each check


class DivergenceError(ValueError):
    """The loss of a training is not finite."""


class LossMonitor:
    """The losses of an epoch's steps, which must be finite.

    On a CPU each step is checked at once. The losses of a GPU stay there until the steps of an
    interval are checked together, at the end of an epoch at the latest.
    """

    def __init__(self, epoch: int, steps: int, device: torch.device, workers: int) -> None:
        """
        Args:
            epoch: its number, for the message.
            steps: of the epoch.
            device: of the losses.
            workers: of the training. All of them stop if the loss of a worker is not finite.
        """
        self.epoch, self.steps, self.workers = epoch, steps, workers
        self.interval = INTERVALS.get(device.type, LATE)
        self.losses = torch.zeros(steps, 2, device=device)
        self.rates: list[float] = []
        self.checked = 0

    def check(self, losses: Tensor, lr: float) -> None:
        """Check the losses of the next step, now or with those of later steps.

        Args:
            losses: (2,), of this worker's share: cross entropy and triplet loss.
            lr: learning rate of the step.

        Raises:
            DivergenceError: a loss of this step, or of an earlier step, is not finite.
        """
        self.losses[len(self.rates)] = losses
        self.rates.append(lr)
        step = len(self.rates)
        if step % self.interval and step < self.steps:
            return
        diverges = (~self.losses[self.checked : step].isfinite()).any(1).to(torch.uint8)
        if self.workers > 1:
            distributed.all_reduce(diverges, distributed.ReduceOp.MAX)
        numbers = diverges.tolist()
        if any(numbers):
            place = self.checked + numbers.index(1)
            raise DivergenceError(
                f"the loss is not finite in epoch {self.epoch}, step {place + 1}, at a learning "
                f"rate of {self.rates[place]:g}: lower lr in the recipe, or raise its warm_up"
            )
        self.checked = step
