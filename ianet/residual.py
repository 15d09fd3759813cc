"""The BatchNorm at the end of a residual block, Y = BN(E) + F."""

from __future__ import annotations

import torch
from torch import nn

MOST = torch.finfo(torch.float32).max


def residual_norm(channels: int, initial_scale: float) -> nn.BatchNorm2d:
    """Return a BatchNorm whose scale starts at `initial_scale` and whose bias starts at 0.

    A scale of 0 makes a fresh block exactly the identity.

    Raises:
        ValueError: an initial scale that is no number of at least 0, or that float32 cannot hold.
    """
    if not isinstance(initial_scale, int | float) or not 0 <= initial_scale <= MOST:
        raise ValueError(
            f"initial_scale is {initial_scale!r}: give a number of at least 0 in float32"
        )
    norm = nn.BatchNorm2d(channels)
    nn.init.constant_(norm.weight, initial_scale)
    return norm
