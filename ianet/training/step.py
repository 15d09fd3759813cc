"""A step of training: forward and backward of a worker's share of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from ianet.losses import batch_hard_triplet
from ianet.numerics import NARROW, is_narrow
from ianet.training.recipe import Recipe

Step = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Inputs, labels and places, as of `compute_gradients`, to the sums that it returns."""


def is_mixed(recipe: Recipe, device: torch.device) -> bool:
    """Return whether to train in mixed precision.

    A device that only emulates bfloat16 is slower with mixed precision: ten times, on a CPU with
    AVX2 alone.

    Raises:
        ValueError: bfloat16 on a CPU for images of at most `NARROW` pixels in width.
    """
    narrow = is_narrow(device, recipe.width)
    if recipe.precision == "bfloat16" and narrow:
        raise ValueError(
            f"precision is 'bfloat16', in which a CPU cannot train on images {recipe.width} pixels "
            f"wide: set precision to float32 or auto, or width above {NARROW}"
        )
    if recipe.precision != "auto":
        return recipe.precision == "bfloat16"
    if narrow:
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(
        capabilities.get(name) for name in ("avx512_bf16", "amx_bf16")
    )


def compute_gradients(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    places: Tensor,
    *,
    recipe: Recipe,
    mixed: bool,
    workers: int,
) -> Tensor:
    """Run forward and backward for a worker's share of a batch.

    Args:
        model: whose parameters get gradients.
        inputs: (len(places), 3, H, W), the share.
        labels: (B,), of the whole batch.
        places: (len(places),), of the share in the batch.
        recipe: which losses to take.
        mixed: whether in mixed precision.
        workers: among whom the batch is shared.

    Returns:
        (3,), sums over the share: cross entropy, triplet loss, correct answers.
    """
    targets = labels[places]
    with _use_tensor_cores(inputs.device, mixed):
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=mixed):
            logits, embeddings = model(inputs)
            cross_entropy = F.cross_entropy(
                logits.float(), targets, label_smoothing=recipe.label_smoothing, reduction="sum"
            )
            triplet = torch.zeros((), device=inputs.device)
            if recipe.triplet_margin:
                embeddings = embeddings.float()
                if workers > 1:
                    embeddings = _gather_embeddings(embeddings, places, len(labels))
                triplet = batch_hard_triplet(
                    embeddings, labels, recipe.triplet_margin, recipe.triplet_distance
                ).sum()
        # DDP averages over the workers, whose shares may differ by one image.
        ((cross_entropy + triplet) * (workers / len(labels))).backward()
    correct = (logits.argmax(1) == targets).sum()
    # Every worker has the triplet loss of the whole batch.
    return torch.stack([cross_entropy.detach(), triplet.detach() / workers, correct])


@contextmanager
def _use_tensor_cores(device: torch.device, mixed: bool) -> Iterator[None]:
    """Multiply float32 matrices as TF32, in mixed precision on a GPU.

    Only the products of relations stay in float32 then, and TF32 is several times as fast. Features
    in bfloat16 are exact in TF32. Results are rounded to bfloat16, which keeps fewer digits than
    TF32.
    """
    if not (mixed and device.type == "cuda"):
        yield  # setting the precision that is set would have torch compile anew
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _gather_embeddings(embeddings: Tensor, places: Tensor, images: int) -> Tensor:
    """Return the embeddings of a whole batch, of which a worker computed its share.

    Gradients reach the worker's share alone. That is enough: each worker has the loss of the whole
    batch, so a share gets its whole gradient, and DDP sums the shares.

    Args:
        embeddings: (len(places), D).
        places: (len(places),), of the embeddings in the batch.
        images: of the batch.

    Returns:
        (images, D).
    """
    # A sum with zeros, as shares may differ by one image and all_gather needs equal shares.
    batch = embeddings.new_zeros(images, embeddings.shape[1])
    batch.index_copy_(0, places, embeddings.detach())
    distributed.all_reduce(batch)
    return batch.index_copy(0, places, embeddings)


class GraphStep:
    """A step as one CUDA graph for each size of batch, of which an epoch has two at most.

    A step is about two thousand kernels, which Python launches more slowly than a GPU runs those
    of a small batch. The first batch of a size runs without a graph, so that libraries initialise.
    The second batch records the graph. The graph is replayed for this batch and for all others.
    """

    def __init__(self, step: Step, parameters: list[nn.Parameter], device: torch.device) -> None:
        self.step, self.parameters, self.device = step, parameters, device
        self.stream = torch.cuda.Stream(device)  # torch's default is on the first device used
        self.pool = torch.cuda.graph_pool_handle()  # one graph runs at a time: they share memory
        self.sizes: set[int] = set()
        self.replays: dict[int, Step] = {}

    def __call__(self, inputs: Tensor, labels: Tensor, places: Tensor) -> Tensor:
        size = len(inputs)
        with torch.cuda.device(self.device):
            if size not in self.sizes:
                self.sizes.add(size)
                return self.step(inputs, labels, places)
            if size not in self.replays:
                self.replays[size] = self._record(inputs, labels, places)
            return self.replays[size](inputs, labels, places)

    def _record(self, *example: Tensor) -> Step:
        graph = torch.cuda.CUDAGraph()
        buffers = [argument.clone() for argument in example]
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                sums = self.step(*buffers)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"no CUDA graph can be made of a step ({str(error).splitlines()[0]}): set "
                "cuda_graph: false in the recipe, or change the block that waits for the device"
            ) from error
        gradients = [parameter.grad for parameter in self.parameters]

        def replay(*arguments: Tensor) -> Tensor:
            for buffer, argument in zip(buffers, arguments, strict=True):
                buffer.copy_(argument)
            graph.replay()
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            return sums

        return replay
