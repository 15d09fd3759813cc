"""Losses that torch lacks, as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def batch_hard_triplet(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Each embedding against its farthest of the same identity and its nearest of another.

    max(0, margin + max D(a, p) - min D(a, n)): Hermans et al., In Defense of the Triplet Loss
    (2017), Eq. 5, with the Euclidean distance, not squared, of embeddings that are not
    normalised, as there and in Luo et al., Bag of Tricks (CVPRW 2019).

    Args:
        embeddings: (B, D) floating point.
        labels: (B,) of any integer type.
        margin: in the unit of the embeddings.

    Returns:
        (B,), one loss for each embedding as the anchor. An anchor alone of its identity is its
        own positive, at distance 0; one without any other identity has loss 0. Where several
        are equally far or near, they share the gradient; distance 0 has gradient 0.
    """
    # Without the matrix product, whose cancellation would leave little of a small distance.
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels
    farthest = distances.masked_fill(~same, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    return F.relu(margin + farthest - nearest)
