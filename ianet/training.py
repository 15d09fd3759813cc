"""Training of an identity classifier (Section 3.4): one report an epoch, and nothing else.

What a recipe adds to the paper's is from Luo et al., Bag of Tricks and a Strong Baseline for Deep
Person Re-identification (CVPRW 2019), below "Bag of Tricks".

`fit` receives a module and arrays. Under `torch.distributed` it shares every batch among the
workers; the batches, their order and their augmentation do not depend on how many there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ianet import images as packed
from ianet.losses import batch_hard_triplet


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        height, width: of the images, in pixels.
        epochs: how often every image is seen, with `identity_batches` on average.
        batch: images of one step, over all workers together.
        lr, weight_decay: of Adam, the decay as L2 in the gradient.
        schedule: "step" multiplies lr by `gamma` after each epoch of `milestones`; "cosine"
            lets it fall to 0 with every step.
        warm_up: epochs in which lr rises, linearly with every step, from a tenth of what the
            schedule says to the whole (Bag of Tricks, Section 3.1).
        flip: probability that an image is mirrored left to right.
        padding: pixels of black around an image, out of which its size is cropped at random.
        erasing: probability that a random rectangle of an image becomes ImageNet's mean, see
            `images.random_boxes`.
        images_per_identity: K above 0 makes batches of batch / K identities with K images
            each, see `identity_batches`; 0 draws images whatever their identity.
        triplet_margin: of the batch-hard triplet loss, added to the cross entropy with weight
            1, its anchors, positives and negatives from the whole batch; 0 leaves it out.
        label_smoothing: of the cross entropy.
        batch_norm: whose statistics BatchNorm takes: of a "worker"'s own share of the batch, or
            "synchronised", of the whole batch, which torch does on GPUs only.
        precision: "float32", "bfloat16" for mixed precision, or "auto": mixed where the device
            multiplies bfloat16 in hardware.
        cuda_graph: on one GPU, launch a step's kernels as one graph, see `_Graphs`. False for a
            block that waits for the device, as by `.item()` or a boolean mask, or that computes
            something else at each step by Python: a graph can do neither. It takes the memory of
            a step twice.
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
    warm_up: int = 0
    flip: float = 0.5
    padding: int = 0
    erasing: float = 0.0
    images_per_identity: int = 0
    triplet_margin: float = 0.0
    label_smoothing: float = 0.0
    batch_norm: Literal["worker", "synchronised"] = "worker"
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    cuda_graph: bool = True

    def __post_init__(self) -> None:
        for name in ("height", "width", "epochs", "batch", "lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name in ("padding", "images_per_identity", "triplet_margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: it must not be below 0")
        for name in ("flip", "erasing", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must lie in 0 to 1")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones are {list(self.milestones)}: they must ascend")
        if not 0 <= self.warm_up <= self.epochs:
            raise ValueError(f"warm_up is {self.warm_up}: it must lie in 0 to {self.epochs} epochs")
        if self.images_per_identity and self.batch % self.images_per_identity:
            raise ValueError(
                f"batch is {self.batch}: it must be a multiple of images_per_identity, "
                f"{self.images_per_identity}"
            )


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave.

    Attributes:
        epoch: its number, the first is 1.
        loss: mean over the images of what is minimised, weight decay apart.
        triplet: the triplet loss's part of it, 0 without one.
        accuracy: fraction of the images that were classified rightly, while training.
        lr: learning rate at its end.
        seconds: it took.
        images_per_second: of all workers together.
        bits: of the numbers that convolutions multiply: 16 in mixed precision, else 32.
        state: what `fit` needs to go on after this epoch. It refers to the live weights, so
            save it before asking for the next epoch.
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


def identity_batches(
    labels: NDArray[np.integer],
    batch: int,
    images_per_identity: int,
    generator: np.random.Generator,
) -> list[NDArray[np.int64]]:
    """The rows of one epoch's batches, each of P identities with K images each.

    An epoch has as many batches as `batches` gives, but all are full. Each draws P identities
    without replacement, in proportion to their images not yet seen in the epoch, and takes the
    next K of an identity in a random order of the epoch, from its start again after its end. So
    an image is seen once on average; as identities do not come in multiples of K, some are seen
    twice and a few not at all. (The release of Bag of Tricks leaves out an identity's last images
    and the batches that would have fewer than P identities.)

    Args:
        labels: (N,), the identity of each row.
        batch: P K.
        images_per_identity: K; an identity with fewer images repeats them within a batch.
        generator: of everything drawn.

    Raises:
        ValueError: fewer than P identities.
    """
    identities, sizes = np.unique(labels, return_counts=True)
    drawn = batch // images_per_identity
    if len(identities) < drawn:
        raise ValueError(
            f"a batch of {batch} with {images_per_identity} images an identity needs {drawn} "
            f"identities and there are {len(identities)}: lower the batch of the recipe"
        )
    orders = [generator.permutation(np.flatnonzero(labels == one)) for one in identities]
    seen = np.zeros_like(sizes)
    found = []
    for _ in range(-(-len(labels) // batch)):
        # The first of a race of exponential clocks win in proportion to their rates; identities
        # that are used up hardly run, and come last.
        left = np.maximum(sizes - seen, 1e-9)
        chosen = np.argsort(generator.exponential(1 / left))[:drawn]
        places = seen[chosen, None] + np.arange(images_per_identity)
        rows = [orders[one].take(at, mode="wrap") for one, at in zip(chosen, places, strict=True)]
        found.append(np.concatenate(rows))
        seen[chosen] += images_per_identity
    return found


def fit(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    state: dict[str, Any] | None = None,
    on_batch: Callable[[int, float], None] | None = None,
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
        on_batch: told (epoch, fraction of it that is done) after every batch, for a display.

    Yields:
        A report for each epoch that remains. Between them the network may be used, in any mode,
        but not moved: a CUDA graph finds its weights where they were.

    Raises:
        ValueError: batches too small to share among the workers, fewer identities than one of
            `identity_batches` needs, BatchNorm to be synchronised without GPUs, or a block of
            which no CUDA graph can be made.
    """
    workers = distributed.get_world_size() if distributed.is_initialized() else 1
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    steps = -(-len(images) // recipe.batch)
    smallest = recipe.batch if recipe.images_per_identity else len(images) // steps
    if smallest < 2 * workers:
        raise ValueError(
            f"batches of {smallest} images cannot be shared among {workers} workers: each needs "
            "2 for BatchNorm; raise the batch of the recipe or train with fewer workers"
        )

    if recipe.batch_norm == "synchronised" and workers > 1:
        if device.type != "cuda":
            raise ValueError(
                f"batch_norm is synchronised, which needs GPUs, not {device.type}: "
                "set it to worker in the recipe, or train with one worker"
            )
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    network.to(device).to(memory_format=torch.channels_last)
    # Fused: a quarter of the time of Adam's step on a CPU, a tenth of a whole step.
    optimizer = torch.optim.Adam(
        network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    scheduler = _scheduler(optimizer, recipe, steps)
    first = 1
    if state is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        first = state["epoch"] + 1
    model = DistributedDataParallel(network) if workers > 1 else network

    mixed = _mixed(recipe, device)
    step: Callable[[Tensor, Tensor, Tensor], Tensor]
    step = partial(_step, model, recipe=recipe, mixed=mixed, workers=workers)
    if recipe.cuda_graph and device.type == "cuda" and workers == 1:
        step = _Graphs(step, list(network.parameters()), device)
    images = _on_device(images, device)
    identities = labels.cpu().numpy()
    labels = labels.to(device)
    for epoch in range(first, recipe.epochs + 1):
        started = time.perf_counter()
        generator = np.random.default_rng([seed, epoch])
        torch.manual_seed(int(generator.integers(2**31)) + rank)  # for dropout in a block
        model.train()
        order = (
            identity_batches(identities, recipe.batch, recipe.images_per_identity, generator)
            if recipe.images_per_identity
            else batches(len(images), recipe.batch, generator)
        )
        seen = sum(map(len, order))
        done = 0
        # Sums over the images: cross entropy, triplet loss, right answers.
        totals = torch.zeros(3, device=device)
        for rows in order:
            mine = np.array_split(np.arange(len(rows)), workers)[rank]
            inputs = _augmented(images, rows, mine, recipe, generator, device)
            optimizer.zero_grad()
            totals += step(inputs, labels[_sent(rows, device)], _sent(mine, device))
            optimizer.step()
            scheduler.step()
            done += len(rows)
            if on_batch is not None:
                on_batch(epoch, done / seen)
        if workers > 1:
            distributed.all_reduce(totals)
        cross_entropies, triplets, rights = totals.tolist()  # the one synchronisation of an epoch
        seconds = time.perf_counter() - started
        yield Epoch(
            epoch=epoch,
            loss=(cross_entropies + triplets) / seen,
            triplet=triplets / seen,
            accuracy=rights / seen,
            lr=float(scheduler.get_last_lr()[0]),
            seconds=seconds,
            images_per_second=seen / seconds,
            bits=16 if mixed else 32,
            state={
                "epoch": epoch,
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(),
            },
        )


def _step(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    own: Tensor,
    *,
    recipe: Recipe,
    mixed: bool,
    workers: int,
) -> Tensor:
    """Forward and backward of a worker's share of a batch.

    Args:
        model: whose parameters get gradients.
        inputs: (len(own), 3, H, W), the share.
        labels: (B,), of the whole batch.
        own: (len(own),), the share's places in it.

    Returns:
        (3,), sums over the share: cross entropy, triplet loss, right answers.
    """
    wanted = labels[own]
    with _tensor_cores(inputs.device, mixed):
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=mixed):
            logits, embeddings = model(inputs)
            cross_entropy = F.cross_entropy(
                logits.float(), wanted, label_smoothing=recipe.label_smoothing, reduction="sum"
            )
            triplet = torch.zeros((), device=inputs.device)
            if recipe.triplet_margin:
                embeddings = embeddings.float()
                if workers > 1:
                    embeddings = _gathered(embeddings, own, len(labels))
                triplet = batch_hard_triplet(embeddings, labels, recipe.triplet_margin).sum()
        # DDP averages over the workers, whose shares may differ by one image.
        ((cross_entropy + triplet) * (workers / len(labels))).backward()
    right = (logits.argmax(1) == wanted).sum()
    # Every worker has the triplet loss of the whole batch.
    return torch.stack([cross_entropy.detach(), triplet.detach() / workers, right])


@contextmanager
def _tensor_cores(device: torch.device, mixed: bool) -> Iterator[None]:
    """In mixed precision on a GPU, what stays in float32, the products of relations, is multiplied
    as TF32, several times as fast: features in bfloat16 are exact in it, and what they become is
    rounded to bfloat16 in the end, which keeps fewer digits.
    """
    before = torch.get_float32_matmul_precision()
    if mixed and device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Graphs:
    """A step as one CUDA graph for each size of batch, of which an epoch has two at most.

    A step is some two thousand kernels, which Python launches more slowly than a GPU runs those
    of a small batch. The first batch of a size runs as it is, by which libraries set themselves
    up; the second is recorded, and it and all others replay that.
    """

    def __init__(
        self,
        step: Callable[[Tensor, Tensor, Tensor], Tensor],
        parameters: list[nn.Parameter],
        device: torch.device,
    ) -> None:
        self.step, self.parameters, self.device = step, parameters, device
        self.stream = torch.cuda.Stream(device)  # torch's own is on whichever device came first
        self.pool = torch.cuda.graph_pool_handle()  # one graph runs at a time: they share memory
        self.seen: set[int] = set()
        self.replays: dict[int, Callable[[Tensor, Tensor, Tensor], Tensor]] = {}

    def __call__(self, inputs: Tensor, labels: Tensor, own: Tensor) -> Tensor:
        size = len(inputs)
        with torch.cuda.device(self.device):
            if size not in self.seen:
                self.seen.add(size)
                return self.step(inputs, labels, own)
            if size not in self.replays:
                self.replays[size] = self._recorded(inputs, labels, own)
            return self.replays[size](inputs, labels, own)

    def _recorded(self, *example: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
        graph = torch.cuda.CUDAGraph()
        read = [given.clone() for given in example]
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                sums = self.step(*read)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"no CUDA graph can be made of a step ({str(error).splitlines()[0]}): set "
                "cuda_graph: false in the recipe, or change the block that waits for the device"
            ) from error
        gradients = [parameter.grad for parameter in self.parameters]

        def replay(*given: Tensor) -> Tensor:
            for to, value in zip(read, given, strict=True):
                to.copy_(value)
            graph.replay()
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            return sums

        return replay


def _mixed(recipe: Recipe, device: torch.device) -> bool:
    """Whether to train in mixed precision. A device that only emulates bfloat16 is slower with
    it: ten times, on a CPU with AVX2 alone.
    """
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(able.get(one) for one in ("avx512_bf16", "amx_bf16"))


def _scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The schedule of the recipe, advanced once a step; an epoch has `steps` of them."""
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


def _augmented(
    images: Tensor,
    rows: NDArray[np.int64],
    mine: NDArray[np.int64],
    recipe: Recipe,
    generator: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """The inputs of a worker's share of a batch, (len(mine), 3, H, W).

    Whatever is drawn is drawn for the whole batch, so that it does not depend on the share.
    """
    flipped = generator.random(len(rows)) < recipe.flip
    pixels = images[_sent(rows[mine], images.device)]
    if pixels.device.type != device.type:
        pixels = pixels.pin_memory().to(device, non_blocking=True)  # without waiting for it
    if recipe.padding:
        corners = generator.integers(2 * recipe.padding + 1, size=(len(rows), 2))
        pixels = packed.cropped(pixels, _sent(corners[mine], device), recipe.padding)
    inputs = packed.normalized(pixels, _sent(flipped[mine], device))
    if recipe.erasing:
        size = (images.shape[1], images.shape[2])
        boxes = packed.random_boxes(len(rows), size, recipe.erasing, generator)
        inputs = packed.erased(inputs, _sent(boxes[mine], device))
    return inputs


def _gathered(embeddings: Tensor, own: Tensor, images: int) -> Tensor:
    """The embeddings of a whole batch, of which a worker computed its own share.

    Gradients reach that share alone. That is enough: each worker has the loss of the whole
    batch, so its own share gets its whole gradient, and DDP sums the shares.

    Args:
        embeddings: (len(own), D).
        own: (len(own),), their places in the batch.
        images: of the batch.

    Returns:
        (images, D).
    """
    # A sum with zeros, as shares may differ by one image and all_gather wants them equal.
    whole = embeddings.new_zeros(images, embeddings.shape[1])
    whole.index_copy_(0, own, embeddings.detach())
    distributed.all_reduce(whole)
    return whole.index_copy(0, own, embeddings)


def _sent(values: NDArray[Any], device: torch.device) -> Tensor:
    """The values on the device, without waiting for it."""
    return torch.from_numpy(values).to(device, non_blocking=True)


def _on_device(images: Tensor, device: torch.device) -> Tensor:
    """The images on the device where they leave half of its free memory, else where they are."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if 2 * images.nbytes > free:
            return images
    return images.to(device)
