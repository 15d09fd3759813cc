"""The non-local block (Wang et al., Non-local Neural Networks, CVPR 2018).

Features are (B, C, H, W), M = H * W. The paper's bottleneck is kept, its subsampling of the
positions is omitted. The dot products are not scaled, as printed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ianet.options import refuse_unknown
from ianet.residual import residual_norm

SIMILARITIES = ("embedded_gaussian", "gaussian", "dot_product")


class NonLocal(nn.Module):
    """z_i = BN(W_z y_i) + x_i, y_i = 1 / C(x) sum_j f(x_i, x_j) g(x_j) (Eq. 1 and 6).

    A fresh module is exactly the identity, as the BatchNorm starts at zero (Section 4.1), unless
    `initial_scale` is set.

    Args:
        channels: C, at least 2; the block works in C / 2, rounded down (Section 3.3).
        similarity: f and its normalisation C(x): "gaussian" (Eq. 2; its relation is the
            IA block's S_1^A), "embedded_gaussian" (Eq. 3), both a softmax, or "dot_product"
            (Eq. 4), divided by M.
        initial_scale: of the BatchNorm, 0 as in the paper.

    Raises:
        ValueError: an unknown similarity, a single channel, or an initial scale below 0.
    """

    def __init__(
        self,
        channels: int,
        *,
        similarity: str = "embedded_gaussian",
        initial_scale: float = 0.0,
    ) -> None:
        super().__init__()
        refuse_unknown("similarity", similarity, SIMILARITIES)
        if channels < 2:
            raise ValueError(f"channels is {channels}: a bottleneck of half needs at least 2")
        self.similarity = similarity

        def reduce_channels() -> nn.Module:
            return nn.Conv2d(channels, channels // 2, 1, bias=False)

        embeds = similarity != "gaussian"
        self.query = reduce_channels() if embeds else nn.Identity()  # W_theta
        self.key = reduce_channels() if embeds else nn.Identity()  # W_phi
        self.value = reduce_channels()  # W_g
        self.output = nn.Conv2d(channels // 2, channels, 1, bias=False)  # W_z
        self.norm = residual_norm(channels, initial_scale)

    def relation(self, features: Tensor) -> Tensor:
        """Return f(x_i, x_j) / C(x), (B, M, M), in float32 or float64."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        queries = self.query(features).flatten(2).to(dtype)  # (B, C / 2, M)
        keys = self.key(features).flatten(2).to(dtype)
        # As in the IA block, relations and aggregation stay in float32 under mixed precision.
        with torch.autocast(features.device.type, enabled=False):
            dots = queries.transpose(1, 2) @ keys
            if self.similarity == "dot_product":
                return dots / dots.shape[-1]
            return torch.softmax(dots, dim=-1)

    def forward(self, features: Tensor) -> Tensor:
        batch, _, height, width = features.shape
        relation = self.relation(features)
        values = self.value(features).flatten(2).to(relation.dtype)  # (B, C / 2, M)
        with torch.autocast(features.device.type, enabled=False):
            aggregate = values @ relation.transpose(1, 2)
        output = self.output(aggregate.view(batch, -1, height, width))
        return self.norm(output) + features


Block = NonLocal
"""A network takes this file's block by the name `Block`."""
