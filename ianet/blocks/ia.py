"""The Interaction-and-Aggregation block (Hou et al., CVPR 2019, Eq. 6, 8 and 9).

Features are (B, C, H, W), M = H * W. Every module keeps the shape of its input. A fresh module is
exactly the identity, as its BatchNorm starts at zero (Section 3.3), unless `initial_scale` is set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ianet import relations
from ianet.options import refuse_unknown
from ianet.relations import Scale
from ianet.residual import residual_norm

RELATIONS = ("appearance", "location", "semantic", "uniform")
ARRANGEMENTS = ("sia", "cia", "sia-cia", "cia-sia", "parallel")

CACHE_BYTES = 2**22
"""Size of the relation maps that SIA computes at once on a CPU, instead of the whole batch.

Maps that stay in the processor's cache are not read from memory for each of a dozen operations."""
KEPT_RELATIONS = 8
"""Most location and uniform relations that are kept: one for each size, sigma, type and device."""
ATTENTION_POSITIONS = 256
"""Most positions for which CIA in bfloat16 on a GPU is attention: no fast kernel has more."""


class _Residual(nn.Module):
    """Y = BN(E) + F (Eq. 9), for an aggregation E of F."""

    def __init__(self, channels: int, initial_scale: float) -> None:
        super().__init__()
        self.norm = residual_norm(channels, initial_scale)

    def aggregate(self, features: Tensor) -> Tensor:
        raise NotImplementedError

    def residual(self, features: Tensor) -> Tensor:
        """Return BN(E)."""
        return self.norm(self.aggregate(features)).to(features.dtype)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.residual(features)  # the sum has the first term's layout


def _fixed_relation(
    height: int,
    width: int,
    sigma: tuple[float, float] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """Return the location relation, (M, M), or without sigma the uniform one."""
    # A tensor that is made in inference mode cannot be used in a training.
    with torch.inference_mode(False):
        if sigma is None:
            return relations.uniform_relation(height, width, dtype=dtype, device=device)
        return relations.location_relation(height, width, sigma, dtype=dtype, device=device)


# Outside of the blocks, whose state and copies then do not have it.
_kept_relation = lru_cache(maxsize=KEPT_RELATIONS)(_fixed_relation)


def _to_float(number: object) -> float:
    """Return a number as float; raise TypeError for a text or a truth value."""
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{number!r} is no number")
    return float(number)


class SpatialIA(_Residual):
    """SIA block, Y = BN(E^S) + F with E^S = F S^T (Eq. 6 and 9).

    Args:
        channels: C.
        contexts: patch sizes of the appearance relation (Eq. 1 and 2).
        fusion: "prod", "sum" or "max", the fusion function of Eq. 2 and 5.
        relation: "semantic" (Eq. 5), "appearance" (Eq. 2, or Eq. 1 for a single context),
            "location" (Eq. 4) or "uniform", the control that gathers all positions alike.
        sigma: (sigma_1 along x, sigma_2 along y) of Eq. 3; Section 4.1 takes (10, 20) after
            stage 2 and (5, 10) after stage 3.
        scale: factor on the dot products of Eq. 1, 1 as printed; the authors' code has
            "rsqrt_channels".
        normalization: "softmax" as printed, or "renormalized", see `relations.normalize`.
        initial_scale: of the BatchNorm, 0 as in the paper.

    Raises:
        ValueError: an unknown name, an empty `contexts`, a sigma that is not two numbers above 0,
            an initial scale below 0.
    """

    def __init__(
        self,
        channels: int,
        *,
        contexts: Sequence[int] = (1, 2, 3),
        fusion: str = "prod",
        relation: str = "semantic",
        sigma: tuple[float, float] = (5.0, 10.0),
        scale: Scale = 1.0,
        normalization: str = "softmax",
        initial_scale: float = 0.0,
    ) -> None:
        super().__init__(channels, initial_scale)
        refuse_unknown("relation", relation, RELATIONS)
        self.contexts = tuple(contexts)
        self.fusion = fusion
        self.relation_name = relation
        try:
            sigma_1, sigma_2 = map(_to_float, sigma)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"sigma is {sigma}: give two numbers, sigma_1 and sigma_2") from error
        self.sigma = (sigma_1, sigma_2)
        self.scale = scale
        self.normalization = normalization
        with torch.no_grad():  # a wrong name raises here, even if `relation` does not use the name
            relations.semantic_relation(
                self._appearance(torch.zeros(1, channels, 1, 1)),
                relations.location_relation(1, 1, self.sigma),
                fusion,
                normalization,
            )

    def relation(self, features: Tensor) -> Tensor:
        """Return S, (B, M, M), in float32 or float64; every row is a distribution.

        Location and uniform relations are views of a map that is kept: do not write to them.
        """
        if self.relation_name == "appearance":
            return self._appearance(features)
        if self.relation_name == "semantic":
            return relations.semantic_relation(
                self._appearance(features),
                self._fixed(features),
                self.fusion,
                self.normalization,
            )
        return self._fixed(features).expand(features.shape[0], -1, -1)

    def _appearance(self, features: Tensor) -> Tensor:
        if len(self.contexts) == 1:  # Table 4a gathers with S_K^A itself, Eq. 1
            return relations.appearance_relation(features, self.contexts[0], self.scale)
        return relations.multi_context_relation(
            features, self.contexts, self.fusion, self.scale, self.normalization
        )

    def _fixed(self, features: Tensor) -> Tensor:
        """Return the relation that does not depend on the values of features, (M, M)."""
        height, width = features.shape[2:]
        sigma = None if self.relation_name == "uniform" else self.sigma
        dtype = torch.promote_types(features.dtype, torch.float32)
        # The compiler does not see a cache, and its tensors without values must not get into one.
        compute = _fixed_relation if torch.compiler.is_compiling() else _kept_relation
        return compute(height, width, sigma, dtype, features.device)

    def aggregate(self, features: Tensor) -> Tensor:
        """Return E^S = F S^T (Eq. 6), (B, C, H, W)."""
        # An exported network takes batches of any size, which no loop over chunks can follow.
        if features.device.type != "cpu" or torch.compiler.is_exporting():
            return self._gather(features)
        height, width = features.shape[2:]
        images = max(1, CACHE_BYTES // (4 * (height * width) ** 2))
        return torch.cat([self._gather(chunk) for chunk in features.split(images)])

    def _gather(self, features: Tensor) -> Tensor:
        relation = self.relation(features)
        with torch.autocast(features.device.type, enabled=False):
            aggregation = relation @ features.flatten(2).to(relation.dtype).transpose(1, 2)
        return _as_map(aggregation, features)


class ChannelIA(_Residual):
    """CIA block, Y = BN(E^C) + F with E^C = C F (Eq. 8 and 9).

    Args:
        channels: C.
        scale: factor on the dot products of Eq. 7, 1 as printed, or "rsqrt_channels".
        initial_scale: of the BatchNorm, 0 as in the paper.

    Raises:
        ValueError: an unknown scale, or an initial scale below 0.
    """

    def __init__(self, channels: int, *, scale: Scale = 1.0, initial_scale: float = 0.0) -> None:
        super().__init__(channels, initial_scale)
        self.scale = scale
        with torch.no_grad():
            self.relation(torch.zeros(1, channels, 1, 1))  # a wrong name raises here, not later

    def relation(self, features: Tensor) -> Tensor:
        """Return C, (B, C, C), in float32 or float64; every row is a distribution."""
        return relations.channel_relation(features, self.scale)

    def aggregate(self, features: Tensor) -> Tensor:
        """Return E^C = C F (Eq. 8), (B, C, H, W)."""
        small = features.shape[2] * features.shape[3] <= ATTENTION_POSITIONS
        if small and features.is_cuda and features.dtype == torch.bfloat16:
            return self._attend(features)
        relation = self.relation(features)
        with torch.autocast(features.device.type, enabled=False):
            positions = features.flatten(2).to(relation.dtype).transpose(1, 2)
            aggregation = positions @ relation.transpose(1, 2)
        return _as_map(aggregation, features)

    def _attend(self, features: Tensor) -> Tensor:
        """Return E^C as attention, with a channel map as query, key and value.

        The relation is then never in memory. The softmax is in float32, and its weights are rounded
        to bfloat16.
        """
        maps = features.flatten(2).contiguous()[:, None]  # (B, 1 head, C, M)
        scale = relations.factor(features, self.scale)
        return F.scaled_dot_product_attention(maps, maps, maps, scale=scale)[:, 0].view_as(features)


def _as_map(aggregation: Tensor, features: Tensor) -> Tensor:
    """Return the aggregation of positions, (B, M, C), as (B, C, H, W).

    The map is channels last in memory, like the features to which the map is added. Convolutions
    are fastest in this layout.
    """
    return aggregation.transpose(1, 2).view_as(features)


class IABlock(nn.Module):
    """SIA and CIA in one of the arrangements of Table 4d (Section 3.3).

    Args:
        channels: C.
        arrangement: "sia", "cia", "sia-cia" (SIA first, the paper's choice), "cia-sia", or
            "parallel", Y = BN(E^S) + BN(E^C) + F.
        channel_scale: scale of `ChannelIA`.
        initial_scale: of the BatchNorms of both modules.
        spatial: further options of `SpatialIA`, of which `scale` is SIA's.

    Raises:
        ValueError: an unknown arrangement, or what the modules raise.
    """

    def __init__(
        self,
        channels: int,
        *,
        arrangement: str = "sia-cia",
        channel_scale: Scale = 1.0,
        initial_scale: float = 0.0,
        **spatial: Any,
    ) -> None:
        super().__init__()
        refuse_unknown("arrangement", arrangement, ARRANGEMENTS)
        self.arrangement = arrangement
        # Both are always built, so that a wrong option raises for every arrangement.
        sia = SpatialIA(channels, initial_scale=initial_scale, **spatial)
        cia = ChannelIA(channels, scale=channel_scale, initial_scale=initial_scale)
        self.sia = None if arrangement == "cia" else sia
        self.cia = None if arrangement == "sia" else cia

    def forward(self, features: Tensor) -> Tensor:
        if self.sia is None:
            assert self.cia is not None
            return self.cia(features)
        if self.cia is None:
            return self.sia(features)
        if self.arrangement == "parallel":
            return features + (self.sia.residual(features) + self.cia.residual(features))
        if self.arrangement == "sia-cia":
            return self.cia(self.sia(features))
        return self.sia(self.cia(features))

    def residuals(self, features: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield the name, the input and the residual BN(E) of SIA and CIA, in the order they run.

        The input of the one that runs second is what the first gives; in parallel, both inputs are
        the features.
        """
        parallel = self.arrangement == "parallel"
        for name in ("sia", "cia") if parallel else self.arrangement.split("-"):
            module = self.get_submodule(name)
            assert isinstance(module, _Residual)
            residual = module.residual(features)
            yield name, features, residual
            if not parallel:
                features = features + residual


Block = IABlock
"""A network takes this file's block by the name `Block`."""
