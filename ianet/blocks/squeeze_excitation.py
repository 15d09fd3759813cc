"""The squeeze-and-excitation block (Hu et al., Squeeze-and-Excitation Networks, CVPR 2018).

Here the block stands where the IA block stands, after a residual block and not on its branch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SqueezeExcitation(nn.Module):
    """Multiply every channel by a factor in (0, 1), about 1/2 when fresh (Eq. 2-4).

    Args:
        channels: C.
        reduction: r; the excitation works in C / r, rounded down. 16 in the paper.

    Raises:
        ValueError: a reduction below 1 or above C.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ValueError(f"reduction is {reduction}: it must be from 1 to {channels} channels")
        self.reduce = nn.Linear(channels, channels // reduction, bias=False)  # W_1
        self.expand = nn.Linear(channels // reduction, channels, bias=False)  # W_2

    def excitation(self, features: Tensor) -> Tensor:
        """Return s = sigmoid(W_2 ReLU(W_1 z)), z the channels' means (Eq. 2 and 3), (B, C)."""
        means = features.mean(dim=(2, 3))
        return torch.sigmoid(self.expand(F.relu(self.reduce(means))))

    def forward(self, features: Tensor) -> Tensor:
        return features * self.excitation(features)[:, :, None, None]  # (B, C, 1, 1)


Block = SqueezeExcitation
"""A network takes this file's block by the name `Block`."""
