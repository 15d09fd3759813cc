"""CBAM (Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018).

The layers of Eq. 2 and 3 have no biases and no BatchNorm, as printed; the authors' code has both.
Here the block stands where the IA block stands, after a residual block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvolutionalBlockAttention(nn.Module):
    """F' = M_c(F) F, then F'' = M_s(F') F' (Eq. 1); about F / 4 when fresh.

    Args:
        channels: C.
        reduction: r; the shared perceptron of Eq. 2 works in C / r, rounded down. 16 in the
            paper.

    Raises:
        ValueError: a reduction below 1 or above C.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__()
        if not 1 <= reduction <= channels:
            raise ValueError(f"reduction is {reduction}: it must be from 1 to {channels} channels")
        self.reduce = nn.Linear(channels, channels // reduction, bias=False)  # W_0
        self.expand = nn.Linear(channels // reduction, channels, bias=False)  # W_1
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)  # 7 x 7: Section 4.1

    def channel_attention(self, features: Tensor) -> Tensor:
        """Return M_c = sigmoid(MLP(means) + MLP(maxima)) (Eq. 2), (B, C, 1, 1)."""
        statistics = (features.mean(dim=(2, 3)), features.amax(dim=(2, 3)))
        mean, maximum = (self.expand(F.relu(self.reduce(statistic))) for statistic in statistics)
        return torch.sigmoid(mean + maximum)[:, :, None, None]

    def spatial_attention(self, features: Tensor) -> Tensor:
        """Return M_s = sigmoid(f^7x7([means; maxima])) over the channels (Eq. 3), (B, 1, H, W)."""
        mean, maximum = features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)
        return torch.sigmoid(self.spatial(torch.cat((mean, maximum), dim=1)))

    def forward(self, features: Tensor) -> Tensor:
        product = features * self.channel_attention(features)
        return product * self.spatial_attention(product)


Block = ConvolutionalBlockAttention
"""A network takes this file's block by the name `Block`."""
