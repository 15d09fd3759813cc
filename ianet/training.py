"""Training of an identity classifier (Section 3.4): one report an epoch, and nothing else.

`fit` receives a module and arrays. Under `torch.distributed` it shares every batch among the
workers; the batches, their order and their augmentation do not depend on how many there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ianet import images as packed


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        height, width: of the images, in pixels.
        epochs: how often every image is seen.
        batch: images of one step, over all workers together.
        lr, weight_decay: of Adam, the decay as L2 in the gradient.
        schedule: "step" multiplies lr by `gamma` after each epoch of `milestones`; "cosine"
            lets it fall to 0 with every step.
        flip: probability that an image is mirrored left to right.
        label_smoothing: of the cross entropy.
        precision: "float32", or "bfloat16" for mixed precision.
    """

    height: int
    width: int
    epochs: int
    batch: int
    lr: float
    weight_decay: float
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    flip: float = 0.5
    label_smoothing: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        for name in ("height", "width", "epochs", "batch", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("flip", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie in 0 to 1")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones are {list(self.milestones)}: they must ascend")


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave.

    Attributes:
        epoch: its number, the first is 1.
        loss: mean cross entropy over the images.
        accuracy: fraction of the images that were classified rightly, while training.
        lr: learning rate at its end.
        seconds: it took.
        images_per_second: of all workers together.
        state: what `fit` needs to go on after this epoch. It refers to the live weights, so
            save it before asking for the next epoch.
    """

    epoch: int
    loss: float
    accuracy: float
    lr: float
    seconds: float
    images_per_second: float
    state: dict[str, Any]


def labels_of(persons: NDArray[np.integer]) -> Tensor:
    """Identities numbered from 0 in ascending order, so alike in every process: (N,) int64."""
    return torch.from_numpy(np.unique(persons, return_inverse=True)[1].astype(np.int64))


def batches(images: int, batch: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """The rows of one epoch's batches: every image once, in random order.

    The batches differ by one image at most and have at most `batch`, so that none is so small
    that its BatchNorm statistics are noise.
    """
    order = generator.permutation(images)
    return np.array_split(order, -(-images // batch))


def fit(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    state: dict[str, Any] | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Iterator[Epoch]:
    """Train a network; the caller decides what to do with each epoch.

    Everything random is drawn from (seed, epoch) anew at the start of an epoch. So a training
    that goes on from the state of an epoch equals one that was never interrupted.

    Args:
        network: gives logits (B, identities) and embeddings (B, D) in training mode. It is
            moved to `device` and trained in place. Its initial weights are the caller's to seed.
        images: (N, H, W, 3) uint8, the same in every worker; held on the device if they fit.
        labels: (N,) int64.
        recipe: how to train.
        seed: of the order and the augmentation.
        device: of this worker.
        state: of the last epoch done, to go on from it.
        on_batch: told (epoch, images done in it) after every batch, for a progress display.

    Yields:
        A report for each epoch that remains.

    Raises:
        ValueError: batches too small to share among the workers.
    """
    workers = distributed.get_world_size() if distributed.is_initialized() else 1
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    smallest = len(images) // -(-len(images) // recipe.batch)
    if smallest < 2 * workers:
        raise ValueError(
            f"batches of {smallest} images cannot be shared among {workers} workers: each needs "
            "2 for BatchNorm; raise the batch of the recipe or train with fewer workers"
        )

    network.to(device).to(memory_format=torch.channels_last)
    # Fused: a quarter of the time of Adam's step on a CPU, a tenth of a whole step.
    optimizer = torch.optim.Adam(
        network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    scheduler = _scheduler(optimizer, recipe, steps=-(-len(images) // recipe.batch))
    first = 1
    if state is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        first = state["epoch"] + 1
    model = DistributedDataParallel(network) if workers > 1 else network

    images = _on_device(images, device)
    labels = labels.to(device)
    for epoch in range(first, recipe.epochs + 1):
        started = time.perf_counter()
        generator = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(generator.integers(2**31)) + rank)  # for dropout in a block
        model.train()
        totals = torch.zeros(2, device=device)  # sums of the loss and of right answers
        done = 0
        for rows in batches(len(images), recipe.batch, generator):
            flips = generator.random(len(rows)) < recipe.flip
            mine = np.array_split(np.arange(len(rows)), workers)[rank]
            own = torch.from_numpy(rows[mine])
            inputs = packed.normalized(
                images[own.to(images.device)].to(device),
                torch.from_numpy(flips[mine]).to(device),
            )
            wanted = labels[own.to(device)]
            with torch.autocast(
                device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"
            ):
                logits, _ = model(inputs)
                loss = F.cross_entropy(
                    logits.float(),
                    wanted,
                    label_smoothing=recipe.label_smoothing,
                    reduction="sum",
                )
            optimizer.zero_grad()
            # DDP averages over the workers, whose shares may differ by one image.
            (loss * (workers / len(rows))).backward()
            optimizer.step()
            scheduler.step()
            totals += torch.stack([loss.detach(), (logits.argmax(1) == wanted).sum()])
            done += len(rows)
            if on_batch is not None:
                on_batch(epoch, done)
        if workers > 1:
            distributed.all_reduce(totals)
        loss_sum, right = totals.tolist()  # the one synchronisation of an epoch
        seconds = time.perf_counter() - started
        yield Epoch(
            epoch=epoch,
            loss=loss_sum / len(images),
            accuracy=right / len(images),
            lr=float(scheduler.get_last_lr()[0]),
            seconds=seconds,
            images_per_second=len(images) / seconds,
            state={
                "epoch": epoch,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            },
        )


def _scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of the recipe, advanced once a step; an epoch has `steps` of them."""
    if recipe.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * steps)
    return torch.optim.lr_scheduler.MultiStepLR(
        optimizer, [epoch * steps for epoch in recipe.milestones], recipe.gamma
    )


def _on_device(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device where they leave half of its free memory, else where they are."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if 2 * images.nbytes > free:
            return images.pin_memory()
    return images.to(device)
