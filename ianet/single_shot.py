"""CMC where the gallery shows each identity once: CUHK03's classic protocol.

For each query, gallery images of its identity *and* its camera are removed, as in
`ianet.retrieval`. Of what is left, one image of each identity is drawn at random, and the rank of
the query's own identity among them counts. The protocol (Li et al., DeepReID, CVPR 2014) repeats
the draw and takes the mean; here is the expectation itself.

Given that image m is drawn for the query's own identity, each of the M images with chance 1/M,
identity j stands before it with chance

    p_jm = (images of j that rank before m) / (images of j)

independently of the others. How many do is a sum of unlike coin tosses (a Poisson-binomial
variable), whose distribution is the product of the polynomials (1 - p_jm) + p_jm z. The identity
is among the first k if fewer than k others stand before it. Average precision is not defined.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ianet.retrieval import NO_MATCH, Scores, compared


def evaluate(
    query_features: Tensor | ArrayLike,
    gallery_features: Tensor | ArrayLike,
    query_ids: Tensor | ArrayLike,
    gallery_ids: Tensor | ArrayLike,
    query_cameras: Tensor | ArrayLike,
    gallery_cameras: Tensor | ArrayLike,
    *,
    distance: str = "cosine",
    max_rank: int = 50,
) -> Scores:
    """The mean of `per_query`, which says what the arguments are; mAP and mINP are NaN."""
    table = per_query(
        query_features,
        gallery_features,
        query_ids,
        gallery_ids,
        query_cameras,
        gallery_cameras,
        distance=distance,
        max_rank=max_rank,
    )
    return Scores(table.mean().to_numpy(), math.nan, math.nan, len(table))


@torch.no_grad()
def per_query(
    query_features: Tensor | ArrayLike,
    gallery_features: Tensor | ArrayLike,
    query_ids: Tensor | ArrayLike,
    gallery_ids: Tensor | ArrayLike,
    query_cameras: Tensor | ArrayLike,
    gallery_cameras: Tensor | ArrayLike,
    *,
    distance: str = "cosine",
    max_rank: int = 50,
) -> pd.DataFrame:
    """The expected CMC of each query by itself.

    Args:
        query_features, ..., distance: as of `ianet.retrieval.per_query`; equal distances are
            ranked by gallery index here, too.
        max_rank: length of the curve, at least 1, however few identities the gallery has.

    Returns:
        A row for each query that has a match, its index the query's position; column k, from 1
        to max_rank, is the chance that its identity is among the first k.

    Raises:
        ValueError: as `ianet.retrieval.per_query`, and max_rank < 1.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank is {max_rank}: the CMC curve needs at least 1 rank")
    left, right, offset, query_id, gallery_id, query_camera, gallery_camera = compared(
        query_features,
        gallery_features,
        query_ids,
        gallery_ids,
        query_cameras,
        gallery_cameras,
        distance=distance,
    )
    identities, identity = gallery_id.unique(return_inverse=True)
    images = identity.bincount(minlength=len(identities)).double()
    curves = {}
    for query in range(len(left)):
        own = gallery_id == query_id[query]
        matches = own & (gallery_camera != query_camera[query])
        if not matches.any():
            continue
        order = torch.addmv(offset, right, left[query]).argsort(stable=True)
        before = images.new_zeros(len(order), len(identities))
        before.scatter_(1, identity[order, None], (~own[order, None]).double())
        chances = (before.cumsum(0) / images)[matches[order]]  # (M, identities)
        curves[query] = _at_most(chances[:, (chances > 0).any(0)], max_rank).mean(0).cpu().numpy()
    if not curves:
        raise ValueError(NO_MATCH)
    columns = np.arange(1, max_rank + 1)
    return pd.DataFrame.from_dict(curves, orient="index", columns=columns)


def _at_most(chances: Tensor, ranks: int) -> Tensor:
    """From (M, J) chances: (M, ranks), the chance that at most 0, 1, ... of the J come true."""
    distribution = chances.new_zeros(len(chances), ranks)
    distribution[:, 0] = 1
    for chance in chances.T[:, :, None]:
        moved = distribution.roll(1, dims=1)
        moved[:, 0] = 0
        distribution = distribution + chance * (moved - distribution)
    return distribution.cumsum(1)
