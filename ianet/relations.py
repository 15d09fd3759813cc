"""The relations between the positions, and between the channels, of a feature map.

Hou et al., Interaction-and-Aggregation Network for Person Re-identification (CVPR 2019),
Eq. 1-5 and 7, as pure functions.

Shapes: B images, C channels, H x W positions, M = H * W. Positions are numbered row by row,
i = y * W + x. Row i of a relation map holds the weights with which i gathers all positions.

The maps keep the precision of the features, but never less than float32, also under autocast. With
C = 1024 and K = 3 the unscaled dot products of Eq. 1 exceed the largest float16. In a training in
mixed precision a GPU multiplies as TF32, see `ianet.training.step`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from functools import reduce
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ianet.options import refuse_unknown

Scale = float | str
"""Factor on the dot products of Eq. 1 and 7: a number (1 as printed) or "rsqrt_channels"."""

FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "prod": torch.mul,
    "sum": torch.add,
    "max": torch.maximum,
}
NORMALIZATIONS = ("softmax", "renormalized")


def appearance_relation(features: Tensor, context: int, scale: Scale = 1.0) -> Tensor:
    """Return the single-context appearance relation S_K^A (Eq. 1).

    Args:
        features: (B, C, H, W).
        context: size K >= 1 of the K x K patches that are compared. Patches are padded with
            zeros; an odd K is centred, an even K reaches from offset 0 to K - 1.
        scale: factor on the dot products, or "rsqrt_channels" for 1 / sqrt(C).

    Returns:
        (B, M, M), every row a distribution.

    Raises:
        ValueError: features of another rank, context < 1, or an unknown scale.
    """
    gram = _gram(features, scale)
    return _patch_softmax(gram, context)


def multi_context_relation(
    features: Tensor,
    contexts: Sequence[int] = (1, 2, 3),
    fusion: str = "prod",
    scale: Scale = 1.0,
    normalization: str = "softmax",
) -> Tensor:
    """Return the multi-context relation S^A = softmax(fusion(S_1^A, ..., S_N^A)) (Eq. 2).

    All contexts come from one Gram matrix (Section 4.3), without extraction of patches.

    Args:
        features: (B, C, H, W).
        contexts: the patch sizes K, at least one.
        fusion: "prod", "sum" or "max", by element.
        scale: as in `appearance_relation`.
        normalization: "softmax" as printed, or "renormalized", see `normalize`.

    Returns:
        (B, M, M), every row a distribution.

    Raises:
        ValueError: no context, or an unknown fusion, scale or normalization.
    """
    if not contexts:
        raise ValueError("contexts is empty: give at least one patch size, such as (1, 2, 3)")
    gram = _gram(features, scale)
    return normalize(fuse([_patch_softmax(gram, k) for k in contexts], fusion), normalization)


def location_relation(
    height: int,
    width: int,
    sigma: tuple[float, float],
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the location relation S^L, a normalised Gaussian of distance (Eq. 3 and 4).

    Args:
        height, width: of the feature map, in positions.
        sigma: (sigma_1 along x, sigma_2 along y), in positions, both > 0.

    Returns:
        (M, M), every row a distribution.

    Raises:
        ValueError: a sigma that is not finite, or not above 0.
    """
    if not all(0 < deviation < math.inf for deviation in sigma):
        raise ValueError(
            f"sigma is {tuple(sigma)}: both standard deviations must be finite and above 0"
        )

    def along(size: int, deviation: float) -> Tensor:
        steps = torch.arange(size, dtype=dtype, device=device)
        gaussian = torch.exp(-0.5 * ((steps[:, None] - steps[None, :]) / deviation) ** 2)
        return gaussian / gaussian.sum(dim=1, keepdim=True)

    # Eq. 3 is a product of a Gaussian in y and a Gaussian in x, and so is its normalisation
    # (Eq. 4). The quotient cancels the factor 1 / (2 pi sigma_1 sigma_2).
    return torch.kron(along(height, sigma[1]), along(width, sigma[0]))


def semantic_relation(
    appearance: Tensor, location: Tensor, fusion: str = "prod", normalization: str = "softmax"
) -> Tensor:
    """Return the semantic relation S = softmax(fusion(S^A, S^L)) (Eq. 5).

    Args:
        appearance: S^A of Eq. 2, (B, M, M).
        location: S^L of Eq. 4, (M, M).
        fusion, normalization: as in `multi_context_relation`.

    Returns:
        (B, M, M), every row a distribution.

    Raises:
        ValueError: an unknown fusion or normalization.
    """
    return normalize(fuse([appearance, location.to(appearance)], fusion), normalization)


def uniform_relation(
    height: int,
    width: int,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the control, (M, M): every position gathers all M positions alike."""
    positions = height * width
    return torch.full((positions, positions), 1 / positions, dtype=dtype, device=device)


def channel_relation(features: Tensor, scale: Scale = 1.0) -> Tensor:
    """Return the channel relation C, a softmax over dot products of channel maps (Eq. 7).

    Args:
        features: (B, C, H, W).
        scale: as in `appearance_relation`.

    Returns:
        (B, C, C), every row a distribution.

    Raises:
        ValueError: features of another rank, or an unknown scale.
    """
    channels = _at_least_float32(features).flatten(2)  # (B, C, M)
    return torch.softmax(_Gram.apply(channels, factor(features, scale)), dim=-1)


def fuse(maps: Sequence[Tensor], fusion: str) -> Tensor:
    """Return the fusion of Eq. 2 and 5 by element, of maps that broadcast to one shape."""
    refuse_unknown("fusion", fusion, FUSIONS)
    return reduce(FUSIONS[fusion], maps)


def normalize(fused: Tensor, normalization: str) -> Tensor:
    """Return a fused map, (..., M, M), with distributions as rows.

    "softmax" is what Eq. 2 and 5 print. As all fused values lie in [0, N], the rows of a softmax
    are almost uniform for any features. "renormalized" divides each row by its sum instead.

    Raises:
        ValueError: an unknown normalization.
    """
    refuse_unknown("normalization", normalization, NORMALIZATIONS)
    if normalization == "softmax":
        return torch.softmax(fused, dim=-1)
    total = fused.sum(dim=-1, keepdim=True)
    # A product of nearly one-hot rows can be 0 everywhere: such a row becomes uniform.
    empty = total < torch.finfo(fused.dtype).tiny
    return torch.where(empty, 1 / fused.shape[-1], fused / total.masked_fill(empty, 1))


def _at_least_float32(features: Tensor) -> Tensor:
    if features.dim() != 4:
        raise ValueError(f"features have shape {tuple(features.shape)}: (B, C, H, W) is expected")
    return features if features.dtype == torch.float64 else features.float()


def factor(features: Tensor, scale: Scale) -> float:
    """Return the factor on the dot products that a scale stands for.

    Raises:
        ValueError: an unknown scale, or one that is not finite.
    """
    if scale == "rsqrt_channels":
        return 1 / math.sqrt(features.shape[1])
    if isinstance(scale, str) or not math.isfinite(scale):
        raise ValueError(f'scale is {scale!r}: give a finite number or "rsqrt_channels"')
    return float(scale)


def _gram(features: Tensor, scale: Scale) -> Tensor:
    """Return the scaled dot products between all positions, (B, H, W, H, W)."""
    batch, _, height, width = features.shape
    positions = _at_least_float32(features).flatten(2).transpose(1, 2)  # (B, M, C)
    gram = _Gram.apply(positions, factor(features, scale))
    return gram.view(batch, height, width, height, width)


def _patch_softmax(gram: Tensor, context: int) -> Tensor:
    """Return Eq. 1, (B, M, M), from the Gram matrix, (B, H, W, H, W).

    The dot product of two patches is the sum of the Gram matrix over the offsets within a patch.
    Both positions move by the same offset, so sums are along the diagonals of (y, y') and (x, x').
    """
    if not isinstance(context, Integral) or context < 1:
        raise ValueError(f"context is {context!r}: give a whole number of positions, from 1 on")
    batch, height, width = gram.shape[:3]
    sums = gram
    if context > 1:
        before = context // 2 if context % 2 else 0
        offsets = range(-before, context - before)
        sums = _DiagonalSum.apply(_DiagonalSum.apply(gram, 1, 3, offsets), 2, 4, offsets)
    return torch.softmax(sums.reshape(batch, height * width, height * width), dim=-1)


class _Gram(torch.autograd.Function):
    """Scaled dot products between all rows X, s X X^T, (B, R, D) to (B, R, R).

    The gradient is s (dG + dG^T) X. Autograd does not know that both factors are X, and would
    multiply by dG and by dG^T separately. Autocast would multiply in float16 or bfloat16.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, factor: float) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.factor = factor
        with torch.autocast(rows.device.type, enabled=False):
            return (rows * factor) @ rows.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        with torch.autocast(rows.device.type, enabled=False):
            return (gradient + gradient.transpose(1, 2)) @ (rows * ctx.factor), None


class _DiagonalSum(torch.autograd.Function):
    """Sum over the offsets of a patch along an axis, with equal offsets in `first` and `second`.

    The gradient is the same sum over the opposite offsets. Autograd would take the gradients of
    slices, each of which writes a whole map of zeros. SIA at stage 2 then takes 1.7 times as long.
    """

    @staticmethod
    def forward(ctx: Any, gram: Tensor, first: int, second: int, offsets: range) -> Tensor:
        ctx.first, ctx.second, ctx.offsets = first, second, offsets
        size = gram.shape[first]
        # The compiler fuses padded slices with the operations that follow. Without the compiler,
        # each padded slice would write a whole map of zeros, so the sum is computed in place.
        fused = torch.compiler.is_compiling()
        total = gram if fused else gram.clone()  # offset 0
        for offset in range(max(offsets.start, 1 - size), min(offsets.stop, size)):
            if not offset:
                continue
            length = size - abs(offset)  # of the positions whose partner is on the map
            target, source = max(0, -offset), max(0, offset)
            shift = gram.narrow(first, source, length).narrow(second, source, length)
            if fused:
                total = total + _pad(shift, {first, second}, target, size - length - target)
            else:
                total.narrow(first, target, length).narrow(second, target, length).add_(shift)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        opposite = range(-ctx.offsets[-1], 1 - ctx.offsets[0])
        return _DiagonalSum.apply(gradient, ctx.first, ctx.second, opposite), None, None, None


def _pad(values: Tensor, axes: Set[int], before: int, after: int) -> Tensor:
    """Return the values with zeros before and after along the axes."""
    sides = [(before, after) if axis in axes else (0, 0) for axis in range(values.dim())]
    return F.pad(values, [size for side in reversed(sides) for size in side])
