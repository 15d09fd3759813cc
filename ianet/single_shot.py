"""CMC where the gallery shows each identity once: CUHK03's classic protocol.

For each query, gallery images of its identity *and* its camera are removed, as in
`ianet.retrieval`. An image of each identity is drawn at random from the remaining images. The rank
of the query's identity among these images counts. The protocol (Li et al., DeepReID, CVPR 2014)
repeats the draw and takes the mean. This module computes the expectation of the draw.

Let image m be drawn for the query's identity, each of its M images with chance 1/M. Identity j
then stands before the query's identity with chance

    p_jm = (images of j that rank before m) / (images of j)

independently of the other identities. The number of identities before the query's is a
Poisson-binomial variable. Its distribution is the product of the polynomials (1 - p_jm) + p_jm z.
A query is matched at rank k if fewer than k identities stand before its identity. Average
precision is not defined.

A query takes memory for a matrix (gallery images, identities) in float64: enough for CUHK03, too
much for large galleries.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ianet.retrieval import NO_MATCH, Scores, prepare


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
    """Return the mean of `per_query`, which describes the arguments; mAP and mINP are NaN."""
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
    """Return the expected CMC of each query by itself.

    Args:
        query_features, ..., distance: as of `ianet.retrieval.per_query`, with its rule for equal
            distances: the gallery index decides.
        max_rank: length of the curve, at least 1, however few identities the gallery has.

    Returns:
        A row for each query that has a match, its index the query's position. Column k, from 1
        to max_rank, is the chance that the query's identity is among the first k.

    Raises:
        ValueError: as `ianet.retrieval.per_query`, and max_rank < 1.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank is {max_rank}: the CMC curve needs at least 1 rank")
    comparison = prepare(
        query_features,
        gallery_features,
        query_ids,
        gallery_ids,
        query_cameras,
        gallery_cameras,
        distance=distance,
    )
    left, gallery_id = comparison.left, comparison.gallery_id
    right, offset = comparison.take(slice(None))
    identities, identity = gallery_id.unique(return_inverse=True)
    images = identity.bincount(minlength=len(identities)).double()
    curves = {}
    for query in range(len(left)):
        same_identity = gallery_id == comparison.query_id[query]
        other_camera = comparison.gallery_camera != comparison.query_camera[query]
        matches = same_identity & other_camera
        if not matches.any():
            continue
        order = torch.addmv(offset, right, left[query]).argsort(stable=True)
        before = images.new_zeros(len(order), len(identities))
        before.scatter_(1, identity[order, None], (~same_identity[order, None]).double())
        chances = (before.cumsum(0) / images)[matches[order]]  # (M, identities)
        curves[query] = _at_most(chances[:, (chances > 0).any(0)], max_rank).mean(0).cpu().numpy()
    if not curves:
        raise ValueError(NO_MATCH)
    columns = np.arange(1, max_rank + 1)
    return pd.DataFrame.from_dict(curves, orient="index", columns=columns)


def _at_most(chances: Tensor, ranks: int) -> Tensor:
    """Return the chances that at most 0, 1, ... of J independent events happen, (M, ranks).

    Args:
        chances: (M, J), of the events.
        ranks: number of terms.
    """
    distribution = chances.new_zeros(len(chances), ranks)
    distribution[:, 0] = 1
    for chance in chances.T[:, :, None]:
        shift = distribution.roll(1, dims=1)
        shift[:, 0] = 0
        distribution = distribution + chance * (shift - distribution)
    return distribution.cumsum(1)
