"""What the inserted blocks of a network do in images, as numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ianet.blocks.ia import ChannelIA, IABlock, SpatialIA
from ianet.images import normalize
from ianet.network import Network


@dataclass(frozen=True)
class BlockDescription:
    """What a block does in images. SIA and CIA of an IA block have a description each.

    Attributes:
        name: path of the module, such as "blocks.stage2.3" or "blocks.stage2.3.sia".
        residual_ratio: root mean square of what the block adds to its input, over that of the
            input; 0 where the block is the identity.
        scale: mean absolute scale of the BatchNorm `norm` that ends the block; None without.
        entropy: mean entropy of the rows of the relation of SIA (Eq. 5) or CIA (Eq. 7), as a
            fraction of the entropy of a uniform row: 1 where every row is uniform, 0 where every
            row is one-hot. None of other blocks.
    """

    name: str
    residual_ratio: float
    scale: float | None
    entropy: float | None


@torch.no_grad()
def describe_blocks(network: Network, images: Tensor) -> list[BlockDescription]:
    """Return a description of each inserted block, in the order of computation.

    Images are taken one by one, so memory does not grow with their number. Relations are in
    float64, as a product of three weights may be less than the least float32.

    Args:
        network: is set to evaluation mode.
        images: (B, height, width, 3) uint8, at least one, of any size.

    Raises:
        ValueError: no images.
    """
    if not len(images):
        raise ValueError("there are no images to describe the blocks in: give at least one")
    network.eval()
    device = next(network.parameters()).device
    residuals: dict[str, Tensor] = {}  # sums over the images
    inputs: dict[str, Tensor] = {}
    entropies: dict[str, float] = {}
    for image in images.split(1):
        for name, entering, residual in _residuals(network, normalize(image.to(device))):
            residuals[name] = residuals.get(name, 0) + residual.double().square().sum()
            inputs[name] = inputs.get(name, 0) + entering.double().square().sum()
            module = network.get_submodule(name)
            if isinstance(module, SpatialIA | ChannelIA):
                entropy = row_entropy(module.relation(entering.double()))
                entropies[name] = entropies.get(name, 0) + entropy / len(images)
    return [
        BlockDescription(
            name,
            (residuals[name] / inputs[name]).sqrt().item(),
            _scale(network.get_submodule(name)),
            entropies.get(name),
        )
        for name in residuals
    ]


def row_entropy(relation: Tensor) -> float:
    """Return the mean entropy of the rows of a relation, as a fraction of a uniform row's.

    Args:
        relation: (..., M), every row a distribution.
    """
    choices = relation.shape[-1]
    if choices == 1:
        return 1.0  # the single row is uniform
    return torch.special.entr(relation).sum(-1).mean().item() / math.log(choices)


def _residuals(network: Network, images: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield the name, the input and the residual of each block, or of its SIA and its CIA.

    Blocks run as they are, not compiled: a compiler would take seconds for a batch of one image.
    """
    last = max(network.blocks, default="")
    features = network.stem(images)
    for stage, residual_blocks in network.stages.items():
        if stage > last:
            return
        blocks = dict(network.blocks[stage].named_children()) if stage in network.blocks else {}
        for place, residual_block in residual_blocks.named_children():
            features = residual_block(features)
            if place in blocks:
                for module, entering, residual in _block_residuals(blocks[place], features):
                    yield f"blocks.{stage}.{place}{module}", entering, residual
                    features = features + residual


def _block_residuals(block: nn.Module, features: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    if isinstance(block, IABlock):
        for name, entering, residual in block.residuals(features):
            yield f".{name}", entering, residual
    else:
        yield "", features, block.forward(features) - features


def _scale(block: nn.Module) -> float | None:
    weight = getattr(getattr(block, "norm", None), "weight", None)
    return weight.abs().mean().item() if isinstance(weight, Tensor) else None
