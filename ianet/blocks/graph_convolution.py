"""Graph convolution over the grid of positions (Kipf and Welling, Semi-Supervised
Classification with Graph Convolutional Networks, ICLR 2017).

Section 3.5 of the IANet paper names this conventional graph convolution. Its graph is fixed: every
position and its neighbours above, below, left and right. SIA's graph depends on the features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ianet.residual import residual_norm


def grid_adjacency(
    height: int,
    width: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the adjacency D^-1/2 (A + I) D^-1/2 of the grid of positions (Section 2.2).

    Returns:
        (M, M), M = height * width, positions numbered row by row; symmetric.
    """
    positions = torch.arange(height * width, device=device)
    y, x = positions // width, positions % width
    distance = (y[:, None] - y[None, :]).abs() + (x[:, None] - x[None, :]).abs()
    adjacency = (distance <= 1).to(dtype)  # A + I
    degree = adjacency.sum(dim=1)
    return adjacency * torch.rsqrt(degree[:, None] * degree[None, :])


class GraphConvolution(nn.Module):
    """Y = BN(Z) + X, Z = D^-1/2 (A + I) D^-1/2 X W (Eq. 8 of the paper, no activation).

    Residual and BatchNorm are those of the IA block (Eq. 9 of the IANet paper), so that the two
    blocks compare. A fresh module is exactly the identity, unless `initial_scale` is set.

    Args:
        channels: C.
        initial_scale: of the BatchNorm, 0 as in the IA block.

    Raises:
        ValueError: an initial scale below 0.
    """

    def __init__(self, channels: int, *, initial_scale: float = 0.0) -> None:
        super().__init__()
        self.transform = nn.Conv2d(channels, channels, 1, bias=False)  # W, Theta in Eq. 8
        self.norm = residual_norm(channels, initial_scale)

    def forward(self, features: Tensor) -> Tensor:
        height, width = features.shape[2:]
        dtype = torch.promote_types(features.dtype, torch.float32)
        adjacency = grid_adjacency(height, width, dtype=dtype, device=features.device)
        values = self.transform(features).flatten(2).to(dtype)  # (B, C, M)
        # As in the IA block, the aggregation stays in float32 under mixed precision.
        with torch.autocast(features.device.type, enabled=False):
            aggregate = values @ adjacency
        return self.norm(aggregate.view_as(features)).to(features.dtype) + features


Block = GraphConvolution
"""A network takes this file's block by the name `Block`."""
