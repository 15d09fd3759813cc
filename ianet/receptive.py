"""What an IA block computes in images: the maps of Figures 4 and 8."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ianet.blocks.ia import IABlock, SpatialIA
from ianet.images import normalize
from ianet.network import Network


@dataclass(frozen=True)
class BlockView:
    """The inputs and outputs inside an IA block, for B images.

    Attributes:
        sia: the block's SIA.
        features: input of SIA, (B, C, H, W) float64.
        channels: output of CIA (Eq. 8 and 9), (B, C, H, W) float64; None in a block without CIA.
    """

    sia: SpatialIA
    features: Tensor
    channels: Tensor | None

    def relation(self, **changes: Any) -> Tensor:
        """Return the relation map S by position.

        [b, y, x] is the receptive field of position (y, x) in image b.

        Args:
            changes: options of `SpatialIA` that replace the block's options, such as
                `relation="appearance", contexts=(5,)` for S_5^A (Eq. 1).

        Returns:
            (B, H, W, H, W) float64.

        Raises:
            ValueError: an unknown option, or a wrong value of an option.
        """
        options = {
            "contexts": self.sia.contexts,
            "fusion": self.sia.fusion,
            "relation": self.sia.relation_name,
            "sigma": self.sia.sigma,
            "scale": self.sia.scale,
            "normalization": self.sia.normalization,
        }
        batch, channels, height, width = self.features.shape
        try:
            sia = SpatialIA(channels, **{**options, **changes})
        except TypeError as error:
            raise ValueError(f"an option of a relation is wrong: {error}") from error
        return sia.relation(self.features).view(batch, height, width, height, width)


@torch.no_grad()
def view_block(network: Network, stage: str, images: Tensor) -> BlockView:
    """Return what the last IA block of a stage takes and gives.

    Args:
        network: in evaluation mode.
        stage: such as "stage2".
        images: (B, height, width, 3) uint8, of any size, as the network is fully convolutional.

    Raises:
        ValueError: no IA block stands after the stage, or the block has no SIA.
    """
    # In float64, as a product of three weights may be less than the least float32.
    exact = deepcopy(network).double()
    blocks = list(exact.blocks[stage].named_children()) if stage in exact.blocks else []
    place, block = blocks[-1] if blocks else ("", None)
    if not isinstance(block, IABlock):
        if not exact.blocks:
            raise ValueError("the network has no block: take a network with IA")
        raise ValueError(
            f"no IA block stands after {stage}: the blocks are {exact.options.block}, "
            f"after {', '.join(exact.blocks)}"
        )
    if block.sia is None:
        raise ValueError(f"the block after {stage} is {block.arrangement!r}: it has no SIA")
    maps = exact.intermediates(normalize(images).double())
    features = next(features for name, features in maps if name == f"stages.{stage}.{place}")
    steps = {step: (entering, residual) for step, entering, residual in block.residuals(features)}
    channels = torch.add(*steps["cia"]) if "cia" in steps else None
    return BlockView(block.sia, steps["sia"][0], channels)
