"""The loop over the epochs: a report for each epoch, without files and without logs.

`fit` receives a module and arrays. Under `torch.distributed` the workers share every batch. The
batches, their order and their augmentation do not depend on the number of workers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ianet.numerics import flush_denormals
from ianet.reading import PackedImages, place_images, read, send
from ianet.training.augmentation import augment
from ianet.training.batches import batches, identity_batches
from ianet.training.compilation import compile_network
from ianet.training.divergence import LossMonitor
from ianet.training.recipe import Recipe
from ianet.training.step import GraphStep, Step, compute_gradients, is_mixed


@dataclass(frozen=True)
class Epoch:
    """The report of an epoch.

    Attributes:
        epoch: its number, the first is 1.
        loss: mean over the images of what is minimised, weight decay apart.
        triplet: mean of the triplet loss, which `loss` includes; 0 without a triplet loss.
        accuracy: fraction of the images that were classified correctly, while training.
        lr: learning rate at the end of the epoch.
        seconds: duration of the epoch.
        images_per_second: of all workers together.
        bits: of the numbers that convolutions multiply: 16 in mixed precision, else 32.
        state: what `fit` needs to resume after this epoch. The state refers to the live weights,
            so save it before asking for the next epoch.
    """

    epoch: int
    loss: float
    triplet: float
    accuracy: float
    lr: float
    seconds: float
    images_per_second: float
    bits: int
    state: dict[str, Any]


def fit(
    network: nn.Module,
    images: Tensor | PackedImages,
    labels: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    state: dict[str, Any] | None = None,
    on_batch: Callable[[int, float], None] | None = None,
) -> Iterator[Epoch]:
    """Train a network; the caller decides what to do with each epoch.

    An epoch draws all its random numbers from (seed, epoch) alone. So a training that resumes
    from the state of an epoch equals a training without an interruption.

    Args:
        network: gives logits (B, identities) and embeddings (B, D) in training mode. The network
            is moved to `device` and trained in place. The caller seeds its initial weights.
        images: (N, H, W, 3) uint8, the same in every worker, see `ianet.reading.place_images`.
        labels: (N,) int64.
        recipe: how to train.
        seed: of the order and the augmentation.
        device: of this worker.
        state: of the last complete epoch, to resume after that epoch.
        on_batch: called after every batch with the epoch and the fraction of its images that were
            processed, for a display.

    Yields:
        A report for each epoch that remains. Between them the network may be used, in any mode,
        but not moved: a CUDA graph refers to the memory of its weights.

    Raises:
        DivergenceError: a loss is not finite, see `divergence.LossMonitor`.
        ValueError: images of another size than the recipe's, another number of labels than of
            images, batches too small to share among the workers, fewer identities than a batch of
            `identity_batches` needs, BatchNorm to be synchronised without GPUs, or a block of
            which no CUDA graph can be made.
    """
    workers = distributed.get_world_size() if distributed.is_initialized() else 1
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    steps = -(-len(images) // recipe.batch)
    _check(images, labels, recipe, steps, workers, device)
    if recipe.batch_norm == "synchronised" and workers > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network.to(device).to(memory_format=torch.channels_last)
    optimizer = _build_optimizer(network, recipe)
    scheduler = _build_scheduler(optimizer, recipe, steps)
    first = 1
    if state is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        first = state["epoch"] + 1
    # DistributedDataParallel of a compiled network is untested.
    model = (
        DistributedDataParallel(network)
        if workers > 1
        else compile_network(network, recipe, device)
    )

    mixed = is_mixed(recipe, device)
    step: Step = partial(compute_gradients, model, recipe=recipe, mixed=mixed, workers=workers)
    if recipe.cuda_graph and device.type == "cuda" and workers == 1:
        step = GraphStep(step, list(network.parameters()), device)
    # torchrun and Ray Train set the variable.
    images = place_images(images, device, int(os.environ.get("LOCAL_WORLD_SIZE", workers)))
    identities = labels.cpu().numpy()
    labels = labels.to(device)
    for epoch in range(first, recipe.epochs + 1):
        start = time.perf_counter()
        generator = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(generator.integers(2**31)) + rank)  # for dropout in a block
        model.train()
        order = _draw_batches(identities, recipe, generator)
        places = [np.array_split(np.arange(len(rows)), workers)[rank] for rows in order]
        shares = (rows[share] for rows, share in zip(order, places, strict=True))
        size = sum(map(len, order))
        position = 0
        # Sums over the images: cross entropy, triplet loss, correct answers.
        sums = torch.zeros(3, device=device)
        monitor = LossMonitor(epoch, steps, device, workers)
        with flush_denormals():
            for rows, share, pixels in zip(order, places, read(images, shares), strict=True):
                inputs = augment(pixels, share, len(rows), recipe, generator, device)
                optimizer.zero_grad()
                step_sums = step(inputs, labels[send(rows, device)], send(share, device))
                monitor.check(step_sums[:2], float(scheduler.get_last_lr()[0]))
                sums += step_sums
                optimizer.step()
                scheduler.step()
                position += len(rows)
                if on_batch is not None:
                    on_batch(epoch, position / size)
            if workers > 1:
                distributed.all_reduce(sums)
            cross_entropy, triplet, correct = sums.tolist()
        seconds = time.perf_counter() - start
        yield Epoch(
            epoch=epoch,
            loss=(cross_entropy + triplet) / size,
            triplet=triplet / size,
            accuracy=correct / size,
            lr=float(scheduler.get_last_lr()[0]),
            seconds=seconds,
            images_per_second=size / seconds,
            bits=16 if mixed else 32,
            state={
                "epoch": epoch,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            },
        )


def _check(
    images: Tensor | PackedImages,
    labels: Tensor,
    recipe: Recipe,
    steps: int,
    workers: int,
    device: torch.device,
) -> None:
    """Raise ValueError unless the images, the labels and the workers suit the recipe."""
    height, width = images.shape[1:3]
    if (height, width) != (recipe.height, recipe.width):
        raise ValueError(
            f"images are {height} x {width} pixels (height x width), and the recipe is for "
            f"{recipe.height} x {recipe.width}: resize the images, or change height and width"
        )
    if len(labels) != len(images):
        raise ValueError(
            f"{len(labels):,} labels of {len(images):,} images: give a label for each image"
        )
    smallest = recipe.batch if recipe.images_per_identity else len(images) // steps
    if smallest < 2 * workers:
        raise ValueError(
            f"batches of {smallest} images cannot be shared among {workers} workers: each needs "
            "2 for BatchNorm; raise the batch of the recipe or train with fewer workers"
        )
    if recipe.batch_norm == "synchronised" and workers > 1 and device.type != "cuda":
        raise ValueError(
            f"batch_norm is synchronised, which needs GPUs, not {device.type}: "
            "set it to worker in the recipe, or train with one worker"
        )


def _build_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    # Fused: a quarter of the time of Adam's step on a CPU, a tenth of a whole step.
    return torch.optim.Adam(
        _group_parameters(network, recipe),
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        fused=True,
    )


def _draw_batches(
    identities: NDArray[np.int64], recipe: Recipe, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Return the rows of each batch of an epoch."""
    if recipe.images_per_identity:
        return identity_batches(identities, recipe.batch, recipe.images_per_identity, generator)
    return batches(len(identities), recipe.batch, generator)


def _group_parameters(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return the optimizer's groups of parameters: with a `block_lr`, all others and blocks."""
    if recipe.block_lr is None:
        return [{"params": list(network.parameters())}]
    groups: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in network.named_parameters():
        groups[name.startswith("blocks.")].append(parameter)
    return [
        {"params": groups[False]},
        {"params": groups[True], "lr": recipe.lr * recipe.block_lr, "weight_decay": 0.0},
    ]


def _build_scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of the recipe, advanced at each of the `steps` of an epoch."""
    schedule: torch.optim.lr_scheduler.LRScheduler
    if recipe.schedule == "cosine":
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * steps)
    else:
        schedule = torch.optim.lr_scheduler.MultiStepLR(
            optimizer, [epoch * steps for epoch in recipe.milestones], recipe.gamma
        )
    if not recipe.warm_up:
        return schedule
    rise = torch.optim.lr_scheduler.LinearLR(
        optimizer, start_factor=0.1, total_iters=recipe.warm_up * steps
    )
    return torch.optim.lr_scheduler.ChainedScheduler([schedule, rise])
