"""Losses that torch lacks, as pure functions."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from ianet.options import refuse_unknown
from ianet.training.recipe import Distance


def batch_hard_triplet(
    embeddings: Tensor,
    labels: Tensor,
    margin: float,
    distance: Distance = "euclidean",
) -> Tensor:
    """Return the batch-hard triplet loss of each embedding a.

    The loss is max(0, margin + max D(a, p) - min D(a, n)) over all p of a's identity and n of
    other identities: Hermans et al., In Defense of the Triplet Loss (2017), Eq. 5. Luo et al., Bag
    of Tricks (CVPRW 2019), take the same loss.

    Args:
        embeddings: (B, D) floating point.
        labels: (B,) of any integer type.
        margin: in the unit of D.
        distance: D. "euclidean" is not squared, of embeddings that are not normalised. "cosine" is
            1 less the cosine, as in the authors' released code.

    Returns:
        (B,), a loss for each embedding as the anchor. If an identity has a single embedding, the
        anchor is also the positive, at distance 0. If the batch has a single identity, the loss
        is 0. Embeddings that are equally far or near share the gradient. Distance 0 has gradient 0.

    Raises:
        ValueError: an unknown distance.
    """
    refuse_unknown("distance", distance, get_args(Distance))
    if distance == "cosine":
        embeddings = F.normalize(embeddings, dim=1)
    # Without the matrix product: its cancellation makes small distances inexact.
    distances = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    if distance == "cosine":
        distances = distances.square() / 2
    same = labels[:, None] == labels
    farthest = distances.masked_fill(~same, -torch.inf).amax(1)
    nearest = distances.masked_fill(same, torch.inf).amin(1)
    return F.relu(margin + farthest - nearest)
