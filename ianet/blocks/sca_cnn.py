"""The attention of SCA-CNN (Chen et al., SCA-CNN: Spatial and Channel-wise Attention in
Convolutional Networks for Image Captioning, CVPR 2017; Section 3.2 and 3.3).

Two things differ from the paper, which captions images:

- The hidden state h of the LSTM, the words so far, does not exist here. The terms W_hs h and
  W_hc h are omitted, so that the attention depends on the image alone.
- The weights are multiplied by their number, M or C, so that uniform attention is the identity, as
  in the authors' code. A softmax alone would make the features M * C times smaller.

The softmax cancels the last biases of both attentions, b_i, which are therefore omitted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ianet.options import refuse_unknown

ORDERS = ("channel-spatial", "spatial-channel")


class SpatialChannelAttention(nn.Module):
    """X = alpha beta V: features V by position and by channel.

    Args:
        channels: C.
        order: "channel-spatial" (C-S) computes alpha of beta V, "spatial-channel" (S-C) beta of
            alpha V.
        common_space: k, where both attentions are computed; 512 in the paper.

    Raises:
        ValueError: an unknown order, or a common space below 1.
    """

    def __init__(
        self, channels: int, *, order: str = "channel-spatial", common_space: int = 512
    ) -> None:
        super().__init__()
        refuse_unknown("order", order, ORDERS)
        if common_space < 1:
            raise ValueError(f"common_space is {common_space}: it must be at least 1")
        self.order = order
        self.embed_positions = nn.Conv2d(channels, common_space, 1)  # W_s and b_s
        self.score_positions = nn.Conv2d(common_space, 1, 1, bias=False)  # W_i
        # W_c is a vector, and the paper takes its outer product with the means: the same function
        # of a single mean serves every channel.
        self.embed_channels = nn.Linear(1, common_space)  # W_c and b_c
        self.score_channels = nn.Linear(common_space, 1, bias=False)  # W_i'

    def spatial_attention(self, features: Tensor) -> Tensor:
        """Return M alpha, alpha = softmax(W_i tanh(W_s V + b_s)) over positions, (B, 1, H, W)."""
        scores = self.score_positions(torch.tanh(self.embed_positions(features))).flatten(2)
        weights = torch.softmax(scores, dim=2) * scores.shape[2]  # (B, 1, M)
        return weights.unflatten(2, features.shape[2:]).to(features.dtype)

    def channel_attention(self, features: Tensor) -> Tensor:
        """Return C beta, beta = softmax(W_i' tanh(W_c v + b_c)) of the means v, (B, C, 1, 1)."""
        means = features.mean(dim=(2, 3))[:, :, None]  # (B, C, 1)
        scores = self.score_channels(torch.tanh(self.embed_channels(means)))
        weights = torch.softmax(scores, dim=1) * scores.shape[1]
        return weights[:, :, :, None].to(features.dtype)

    def forward(self, features: Tensor) -> Tensor:
        if self.order == "channel-spatial":
            product = features * self.channel_attention(features)
            return product * self.spatial_attention(product)
        product = features * self.spatial_attention(features)
        return product * self.channel_attention(product)


Block = SpatialChannelAttention
"""A network takes this file's block by the name `Block`."""
