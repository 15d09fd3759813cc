"""How well features find the same person again: CMC, mean average precision and mINP.

A query ranks the gallery by distance, nearest first. Equal distances are ranked by gallery
index, so that no score depends on how a sort breaks ties. For each query:

- gallery images of its identity *and* its camera are removed;
- gallery images of identity -1 are junk: removed for all queries, without effect on any score;
- all other images stay. Distractors need no further rule: an identity that no query has, such as
  0 in Market-1501, can only stand before matches.

With R matches at ranks r_1 < ... < r_R, counted from 1:

    average precision, "step"           (1/R) sum_i  i / r_i
    average precision, "trapezoid"      (1/R) sum_i  [(i - 1) / (r_i - 1) + i / r_i] / 2,
                                        the first term 1 where r_i = 1
    inverse negative penalty            R / r_R

"step" is what the field's libraries report. "trapezoid" is what Market-1501's tool computes
(Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015), 0.3 to 2 points less.
mINP, the mean of R / r_R, is from Ye et al., Deep Learning for Person Re-identification: A
Survey and Outlook (TPAMI 2021). CMC at k is the share of queries with r_1 <= k.

Neither the whole distance matrix nor the order of all images is needed. A match's rank is its
place among the matches plus the number of other images before the match. This number is looked up
in the sorted distances (`_match_ranks`). Sorting numbers is much faster than sorting their order.
Distances beyond the last match need not be sorted.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from ianet.reranking import KReciprocal, RerankedDistances

DISTANCES = ("cosine", "euclidean")
AVERAGE_PRECISIONS = ("step", "trapezoid")
JUNK = -1
NO_MATCH = (
    "every query would be left without a match: none has a gallery image of its identity from "
    "another camera"
)
COLUMNS = ["first_rank", "average_precision", "inverse_negative_penalty"]

CHUNK_BYTES = 128 * 2**20
"""Most memory that ranking takes at a time, beside copies of the features and re-ranking."""
PAIR_BYTES = 30
"""Most memory of a query-image pair of a chunk, measured in float64 and with ties."""


class Scores(NamedTuple):
    """Means over the queries that have a match; all but `queries` are fractions in [0, 1]."""

    cmc: NDArray[np.float64]
    """(max_rank,), rank-1 first."""
    mAP: float
    mINP: float
    queries: int
    """Number of queries that have a match."""


def evaluate(
    query_features: Tensor | ArrayLike,
    gallery_features: Tensor | ArrayLike,
    query_ids: Tensor | ArrayLike,
    gallery_ids: Tensor | ArrayLike,
    query_cameras: Tensor | ArrayLike,
    gallery_cameras: Tensor | ArrayLike,
    *,
    distance: str = "cosine",
    average_precision: str = "step",
    reranking: KReciprocal | None = None,
    max_rank: int = 50,
) -> Scores:
    """Return the means of `per_query`, which describes the arguments, and the CMC curve.

    Args:
        max_rank: length of the CMC curve, at least 1, whatever the size of the gallery.

    Raises:
        ValueError: max_rank < 1, and as `per_query`.
    """
    if max_rank < 1:
        raise ValueError(f"max_rank is {max_rank}: the CMC curve needs at least 1 rank")
    table = per_query(
        query_features,
        gallery_features,
        query_ids,
        gallery_ids,
        query_cameras,
        gallery_cameras,
        distance=distance,
        average_precision=average_precision,
        reranking=reranking,
    )
    first_ranks = table["first_rank"].to_numpy()
    matches = np.bincount(first_ranks[first_ranks <= max_rank], minlength=max_rank + 1)
    return Scores(
        cmc=matches[1:].cumsum() / len(table),
        mAP=float(table["average_precision"].mean()),
        mINP=float(table["inverse_negative_penalty"].mean()),
        queries=len(table),
    )


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
    average_precision: str = "step",
    reranking: KReciprocal | None = None,
) -> pd.DataFrame:
    """Return the scores of each query by itself, for instance to compare two networks.

    There are Q queries, G gallery images and D numbers a feature. Arguments are tensors or arrays.
    The device of `query_features` computes, in the precision of the features but at least float32.

    Args:
        query_features: (Q, D).
        gallery_features: (G, D).
        query_ids, query_cameras: (Q,) integers.
        gallery_ids, gallery_cameras: (G,) integers; identity -1 is junk.
        distance: "cosine", for which a zero vector is equally far from all vectors, or
            "euclidean".
        average_precision: "step" or "trapezoid".
        reranking: to rank by k-reciprocal neighbours, see `ianet.reranking`.

    Returns:
        A row for each query that has a match, its index the query's position among the Q:
        first_rank (from 1), average_precision and inverse_negative_penalty (fractions).

    Raises:
        ValueError: no query has a match, lengths that disagree, an unknown name, or features
            that are not finite.
    """
    if average_precision not in AVERAGE_PRECISIONS:
        raise ValueError(
            f"unknown average_precision {average_precision!r}: "
            f"use one of {', '.join(AVERAGE_PRECISIONS)}"
        )
    left, right, offset, query_id, gallery_id, query_camera, gallery_camera = prepare(
        query_features,
        gallery_features,
        query_ids,
        gallery_ids,
        query_cameras,
        gallery_cameras,
        distance=distance,
    )
    device = left.device
    reranked_distances = None
    if reranking is not None:
        query = -F.normalize(left) if distance == "cosine" else -left
        reranked_distances = RerankedDistances(query, right, reranking)

    # The gallery images of query q's identity are by_id[start[q] : start[q] + count[q]], in the
    # order of the gallery. Tables of columns are padded with column `size`, which stands for an
    # image infinitely far away.
    size = len(right)
    sorted_id, by_id = gallery_id.sort(stable=True)
    by_id = torch.cat([by_id, by_id.new_tensor([size])])
    gallery_camera = torch.cat([gallery_camera, gallery_camera.new_zeros(1)])
    start = torch.searchsorted(sorted_id, query_id)
    count = torch.searchsorted(sorted_id, query_id, right=True) - start
    place = torch.arange(max([1, *count.tolist()]), device=device)

    chunk = max(1, CHUNK_BYTES // (PAIR_BYTES * (size + 3 * len(place))))
    buffer = right.new_full((min(chunk, len(left)), size + 1), torch.inf)
    scores = torch.empty(len(left), len(COLUMNS), dtype=torch.float64, device=device)
    for first in range(0, len(left), chunk):
        rows = slice(first, first + chunk)
        costs = buffer[: len(left[rows])]
        if reranked_distances is None:
            torch.addmm(offset, left[rows], right.T, out=costs[:, :size])
        else:
            costs[:, :size] = reranked_distances.compute(rows)
        same_id = by_id[(start[rows, None] + place).clamp(max=size)]
        same_id = torch.where(place < count[rows, None], same_id, size)
        other_camera = gallery_camera[same_id] != query_camera[rows, None]
        ranks = _match_ranks(costs, same_id, torch.where(other_camera, same_id, size))
        scores[rows] = _scores(ranks, average_precision)

    table = pd.DataFrame(scores.cpu().numpy(), columns=COLUMNS).dropna()
    if table.empty:
        raise ValueError(NO_MATCH)
    return table.astype({"first_rank": np.int64})


def count_candidates(
    query_ids: ArrayLike,
    gallery_ids: ArrayLike,
    query_cameras: ArrayLike,
    gallery_cameras: ArrayLike,
) -> pd.DataFrame:
    """Return how many gallery images each query ranks, and how many of these are matches.

    Args:
        query_ids, ..., gallery_cameras: as of `per_query`.

    Returns:
        A row for each query: matches and candidates.
    """
    queries = pd.DataFrame({"person": np.asarray(query_ids), "camera": np.asarray(query_cameras)})
    gallery = pd.DataFrame(
        {"person": np.asarray(gallery_ids), "camera": np.asarray(gallery_cameras)}
    )
    gallery = gallery[gallery.person != JUNK]
    of_person = gallery.value_counts("person")
    of_both = gallery.value_counts(["person", "camera"])
    same_person = of_person.reindex(queries.person, fill_value=0).to_numpy()
    same_both = of_both.reindex(pd.MultiIndex.from_frame(queries), fill_value=0).to_numpy()
    return pd.DataFrame(
        {"matches": same_person - same_both, "candidates": len(gallery) - same_both}
    )


class Comparison(NamedTuple):
    """Features and labels without junk; left @ right.T + offset, (Q, G), ranks as the distance."""

    left: Tensor
    """(Q, D)."""
    right: Tensor
    """(G, D)."""
    offset: Tensor
    """(G,)."""
    query_id: Tensor
    gallery_id: Tensor
    query_camera: Tensor
    gallery_camera: Tensor


def prepare(
    query_features: Tensor | ArrayLike,
    gallery_features: Tensor | ArrayLike,
    query_ids: Tensor | ArrayLike,
    gallery_ids: Tensor | ArrayLike,
    query_cameras: Tensor | ArrayLike,
    gallery_cameras: Tensor | ArrayLike,
    *,
    distance: str,
) -> Comparison:
    """Check the arguments of `per_query`, and return them on one device, ready to be ranked.

    Raises:
        ValueError: as `per_query`, but for queries without a match.
    """
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance {distance!r}: use one of {', '.join(DISTANCES)}")
    query_features = _tensor(query_features)
    device = query_features.device
    query, query_id, query_camera = _images(
        "query", query_features, query_ids, query_cameras, device
    )
    gallery, gallery_id, gallery_camera = _images(
        "gallery", gallery_features, gallery_ids, gallery_cameras, device
    )
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query features hold {query.shape[1]} numbers each, gallery features "
            f"{gallery.shape[1]}: both must come from the same network"
        )
    valid = gallery_id != JUNK  # indexing also makes copies, which `_as_product` may overwrite
    gallery, gallery_id, gallery_camera = gallery[valid], gallery_id[valid], gallery_camera[valid]
    dtype = torch.promote_types(torch.promote_types(query.dtype, gallery.dtype), torch.float32)
    query, gallery = query.to(dtype), gallery.to(dtype)
    limit = torch.finfo(dtype).max ** 0.5 / 4  # up to this length no distance overflows
    for name, vectors in (("query", query), ("gallery", gallery)):
        if not (torch.linalg.vector_norm(vectors, dim=1) < limit).all():
            raise ValueError(f"{name} features hold values that are NaN, infinite or too large")
    return Comparison(
        *_as_product(query, gallery, distance), query_id, gallery_id, query_camera, gallery_camera
    )


def _tensor(values: Tensor | ArrayLike) -> Tensor:
    # A copy, as torch warns about read-only arrays such as pandas'.
    return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def _images(
    name: str,
    features: Tensor | ArrayLike,
    ids: Tensor | ArrayLike,
    cameras: Tensor | ArrayLike,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (N, D), identities (N,) and cameras (N,) on one device."""
    vectors = _tensor(features).to(device)
    identity, camera = (
        _tensor(labels).to(device, torch.int64).contiguous() for labels in (ids, cameras)
    )
    if vectors.ndim != 2:
        raise ValueError(f"{name} features have shape {tuple(vectors.shape)}, not (images, D)")
    if not identity.shape == camera.shape == vectors.shape[:1]:
        raise ValueError(
            f"{name} features of {len(vectors)} images, but identities of shape "
            f"{tuple(identity.shape)} and cameras of shape {tuple(camera.shape)}"
        )
    return vectors, identity, camera


def _as_product(query: Tensor, gallery: Tensor, distance: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return left (Q, D), right (G, D) and offset (G,) of a `Comparison`.

    The gallery is overwritten.
    """
    if distance == "cosine":
        # The length of a query changes none of its ranks.
        length = torch.linalg.vector_norm(gallery, dim=1, keepdim=True)
        gallery /= length.masked_fill_(length == 0, 1)
        return -query, gallery, gallery.new_zeros(len(gallery))
    # |q - g|^2 / 2 without |q|^2 / 2, which changes no rank. Differences of large squares lose
    # digits, so the origin is moved to an image: features far from zero are then small.
    origin = gallery[:1].sum(0)
    gallery -= origin
    return origin - query, gallery, gallery.square().sum(1) / 2


def _match_ranks(costs: Tensor, same_id: Tensor, matches: Tensor) -> Tensor:
    """Return the ranks of the matches of a chunk of c queries.

    Args:
        costs: (c, G + 1), smaller is nearer, the last column infinite; overwritten.
        same_id: (c, P) columns of the images of the query's identity, padded with G.
        matches: `same_id` with the columns of the query's camera replaced by G.

    Returns:
        (c, P) float64, ascending; infinite after a query's last match.
    """
    bounds, order = costs.gather(1, matches).sort(dim=1, stable=True)
    costs.scatter_(1, same_id, torch.inf)

    nearer, not_farther = _below(costs, bounds)
    place = torch.arange(1, bounds.shape[1] + 1, device=bounds.device)
    ranks = place + nearer

    # Where another image is exactly as far as a match, the gallery index decides. Ties are rare,
    # so for these few matches the whole row is compared.
    ties = ((not_farther > nearer) & (bounds != torch.inf)).nonzero()
    index = torch.arange(costs.shape[1], device=costs.device)
    for pairs in ties.split(len(costs)):
        row, place = pairs.T
        match = matches[row, order[row, place]]
        before = (costs[row] == bounds[row, place, None]) & (index < match[:, None])
        ranks[row, place] += before.sum(1)
    return ranks.double().masked_fill(bounds == torch.inf, torch.inf)


def _below(costs: Tensor, bounds: Tensor) -> tuple[Tensor, Tensor]:
    """Return how many of a row's costs are less than each of its bounds, and how many not more.

    Args:
        costs: (c, G + 1).
        bounds: (c, P), ascending; counts of infinite bounds are arbitrary.

    Returns:
        (c, P) int64, twice.
    """
    if costs.device.type != "cpu":
        others = costs.sort(dim=1).values
        return torch.searchsorted(others, bounds), torch.searchsorted(others, bounds, right=True)
    # NumPy's sort of numbers is vectorised. It is many times as fast as torch's, which also finds
    # the order, but uses one core. All of this loop releases the interpreter's lock.
    last = bounds.masked_fill(bounds == torch.inf, -torch.inf).amax(1).numpy()
    rows, limits = costs.numpy(), bounds.numpy()
    less, not_more = np.empty((2, *limits.shape), np.int64)

    def count(indices: NDArray[np.int64]) -> None:
        for row in indices:
            near = rows[row][rows[row] <= last[row]]
            near.sort()
            less[row] = near.searchsorted(limits[row])
            not_more[row] = near.searchsorted(limits[row], side="right")

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, np.array_split(np.arange(len(rows)), threads)))
    return torch.from_numpy(less), torch.from_numpy(not_more)


def _scores(ranks: Tensor, average_precision: str) -> Tensor:
    """Return (c, 3), in the order of COLUMNS, from (c, P) ranks; NaN where no image matches."""
    matches = ranks.isfinite().sum(1)
    place = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
    precision = place / ranks  # (c, P), 0 after the last match
    inverse_negative_penalty = precision.gather(1, (matches[:, None] - 1).clamp(min=0)).squeeze(1)
    if average_precision == "trapezoid":
        before = torch.where(ranks == 1, 1.0, (place - 1) / (ranks - 1))
        precision = (before + precision) / 2
    return torch.stack([ranks[:, 0], precision.sum(1) / matches, inverse_negative_penalty], dim=1)
