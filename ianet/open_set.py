"""Open-set search: whether anybody in a gallery is the query's person, and who.

A query is searched twice: in the whole gallery, and without the images of its person. So every
query is also one whom nobody in the gallery is. With a threshold t on the cosine distance, the
terms are those of Phillips, Grother and Micheals, Evaluation Methods in Face Recognition (Handbook
of Face Recognition, 2011), and in brackets those of ISO/IEC 19795-1:

    FAR(t)   share of the queries without their person whose nearest image is below t (FPIR)
    DIR(t)   share of the queries with their person whose nearest image is below t and shows their
             person (TPIR at rank 1)

The threshold for a limit of FAR is the greatest that keeps the limit, and is exact. The share of
false accepts grows with the gallery, so a threshold holds for galleries of about the same size.
Intervals are from a bootstrap over the identities of the queries, in the same gallery.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ianet.comparison import Interval, draw_persons
from ianet.options import check_types
from ianet.verification import (
    Advance,
    Values,
    check_rates,
    estimate_interval,
    normalize_rows,
)

BLOCK_PAIRS = 2**21
"""Query-image pairs that are compared at a time."""


@dataclass(frozen=True)
class SearchThreshold:
    """A threshold on the distance of the nearest image of a gallery.

    Attributes:
        far: the limit, a share of the queries whose person is not in the gallery.
        distance: a nearest image below this distance is accepted.
        dir: share of the queries with their person in the gallery whose person is found.

    Raises:
        ValueError: a wrong value.
    """

    far: float
    distance: Interval
    dir: Interval

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class OpenSetSearch:
    """How often a search finds whether a gallery has a query's person, and who the person is.

    Attributes:
        queries, identities: that were searched.
        mated: queries that have their person in the gallery.
        gallery: its number of images.
        thresholds: in the order of the limits of FAR.

    Raises:
        ValueError: a wrong value.
    """

    queries: int
    identities: int
    mated: int
    gallery: int
    thresholds: tuple[SearchThreshold, ...]

    def __post_init__(self) -> None:
        check_types(self)
        if not self.thresholds:
            raise ValueError("thresholds is empty: there must be one at least")


@torch.no_grad()
def search_open_set(
    query_features: Tensor | ArrayLike,
    gallery_features: Tensor | ArrayLike,
    query_persons: ArrayLike,
    gallery_persons: ArrayLike,
    query_cameras: ArrayLike | None = None,
    gallery_cameras: ArrayLike | None = None,
    *,
    fars: Sequence[float] = (0.01,),
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    advance: Advance = lambda _: None,
) -> OpenSetSearch:
    """Search Q queries in a gallery of G images, with and without the queries' persons.

    Args:
        query_features: (Q, D), a tensor or an array; the device of a tensor computes, in float32.
        gallery_features: (G, D).
        query_persons, gallery_persons: (Q,) and (G,), integers or text.
        query_cameras, gallery_cameras: likewise. Images of a query's person from its camera are
            then left out of both searches. Without cameras no image is.
        fars: limits of FAR.
        draws: of the bootstrap. A draw without a query that has its person does not count.
        confidence: share of the draws within an interval.
        seed: of the draws.
        advance: takes the number of queries that are done.

    Raises:
        ValueError: as `check_rates`, lengths that disagree, features that are not finite, cameras
            of one side alone, or no query has its person in the gallery.
    """
    if (query_cameras is None) != (gallery_cameras is None):
        raise ValueError(
            "cameras are given for one side alone: give query_cameras and gallery_cameras, or "
            "neither"
        )
    queries, gallery = len(np.asarray(query_persons)), len(np.asarray(gallery_persons))
    check_rates(fars, queries, "queries")
    left = normalize_rows(query_features, queries)
    right = normalize_rows(gallery_features, gallery).to(left.device)
    person = _encode(query_persons, gallery_persons, left.device)
    camera = None
    if query_cameras is not None and gallery_cameras is not None:
        camera = _encode(query_cameras, gallery_cameras, left.device)
    same, other = np.full(queries, np.inf), np.full(queries, np.inf)
    block = max(1, BLOCK_PAIRS // max(1, gallery))
    for rows in (slice(first, first + block) for first in range(0, queries, block)):
        distance = 1 - left[rows] @ right.T
        is_same = person.query[rows, None] == person.gallery
        other[rows] = _nearest(distance, ~is_same)
        if camera is not None:
            is_same &= camera.query[rows, None] != camera.gallery
        same[rows] = _nearest(distance, is_same)
        advance(len(distance))
    if np.isinf(same).all():
        raise ValueError("no query has its person in the gallery, from another camera where known")
    if np.isinf(other).any():
        raise ValueError("the gallery shows the person of a query and nobody else: add people")

    identity, names = pd.factorize(person.query.cpu().numpy())
    times = draw_persons(len(names), draws, seed)[:, identity]  # (draws, Q)
    times = times[times[:, np.isfinite(same)].any(1)]
    order = other.argsort()

    def find_threshold(far: float) -> SearchThreshold:
        limit, rate = _accept(same, other, order, np.ones(queries), far)
        samples = [_accept(same, other, order, weights, far) for weights in times]
        return SearchThreshold(
            far,
            estimate_interval(limit, (limit for limit, _ in samples), confidence),
            estimate_interval(rate, (rate for _, rate in samples), confidence),
        )

    return OpenSetSearch(
        queries=queries,
        identities=len(names),
        mated=int(np.isfinite(same).sum()),
        gallery=gallery,
        thresholds=tuple(map(find_threshold, fars)),
    )


class _Codes(NamedTuple):
    """Labels as numbers, (Q,) and (G,)."""

    query: Tensor
    gallery: Tensor


def _encode(query: ArrayLike, gallery: ArrayLike, device: torch.device) -> _Codes:
    labels = [np.asarray(query), np.asarray(gallery)]
    codes, _ = pd.factorize(np.concatenate(labels))
    return _Codes(*torch.from_numpy(codes).to(device).split([len(part) for part in labels]))


def _nearest(distance: Tensor, counts: Tensor) -> Values:
    """Return the least distance of each query, (q,), of the images that count, or infinity."""
    return distance.masked_fill(~counts, torch.inf).amin(1).clamp(min=0).cpu().numpy()


def _accept(
    same: Values, other: Values, order: NDArray[np.int64], weights: Values, far: float
) -> tuple[float, float]:
    """Return the threshold for a limit of FAR, and DIR.

    Args:
        same, other: (Q,), distance of the nearest image of the query's person, infinite where
            there is none, and of other persons.
        order: of the queries by `other`.
        weights: (Q,), how often each query counts.
        far: the limit.
    """
    accepted = weights[order].cumsum()
    limit = other[order[(accepted / accepted[-1]).searchsorted(far, "right")]]
    hits = (same < limit) & (same < other)
    return float(limit), float(weights[hits].sum() / weights[np.isfinite(same)].sum())
