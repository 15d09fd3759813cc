"""How well features find the same person again: CMC, mean average precision and mINP.

A query ranks the gallery by distance, nearest first. Equal distances are ranked by gallery
index, so that no score depends on how a sort breaks ties. The distances of equal features may
differ in their last digit, as products of matrices round by position. For each query:

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
in the sorted distances (`_count_nearer`). Sorting numbers is much faster than sorting their order.
Distances beyond the last match need not be sorted.

A gallery of more than `BLOCK` images is compared block by block, and no copy of the gallery is
made. First the distances of the matches are computed, then in each block the nearer images are
counted. So memory does not grow with the gallery, apart from some numbers an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from ianet.options import refuse_unknown
from ianet.reranking import KReciprocal, RerankedDistances

DISTANCES = ("cosine", "euclidean")
AVERAGE_PRECISIONS = ("step", "trapezoid")
JUNK = -1
NO_MATCH = (
    "every query would be left without a match: none has another gallery image of its identity, "
    "from another camera where cameras count: name the cameras, or ignore them (--cameras ignore)"
)
COLUMNS = ["first_rank", "average_precision", "inverse_negative_penalty"]

CHUNK_BYTES = 128 * 2**20
"""Most memory that ranking takes at a time, beside copies of the features and re-ranking."""
PAIR_BYTES = 30
"""Most memory of a query-image pair of a chunk, measured in float64 and with ties."""
BLOCK = 2**15
"""Gallery images that are compared at a time, where there are more than four times as many."""


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
        ValueError: no query has a match, lengths that disagree, an unknown name, labels that are no
            integers of 64 bits, or features that are complex or not finite.
    """
    refuse_unknown("average_precision", average_precision, AVERAGE_PRECISIONS)
    comparison = prepare(
        query_features,
        gallery_features,
        query_ids,
        gallery_ids,
        query_cameras,
        gallery_cameras,
        distance=distance,
    )
    if reranking is None and comparison.size > 4 * BLOCK:
        scores = _score_by_blocks(comparison, average_precision)
    else:
        scores = _score_at_once(comparison, average_precision, reranking)
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


class Comparison:
    """Features and labels without junk. G is the number of gallery images that are no junk.

    `left @ right.T + offset` ranks the gallery as the distance does, see `take`.

    Attributes:
        left: (Q, D).
        query_id, query_camera: (Q,).
        gallery_id, gallery_camera: (G,).
        size: G.
        distance: "cosine" or "euclidean".
    """

    def __init__(
        self,
        query: Tensor,
        gallery: Tensor | NDArray[Any],
        query_labels: tuple[Tensor, Tensor],
        gallery_labels: tuple[Tensor, Tensor],
        distance: str,
    ) -> None:
        """
        Args:
            query: (Q, D), on the device that computes.
            gallery: (G and junk, D), anywhere.
            query_labels, gallery_labels: identities and cameras, on the device that computes.
            distance: "cosine" or "euclidean".

        Raises:
            ValueError: features that are not finite.
        """
        self.distance = distance
        self.query_id, self.query_camera = query_labels
        valid = gallery_labels[0] != JUNK
        self.gallery_id, self.gallery_camera = (labels[valid] for labels in gallery_labels)
        self.size = len(self.gallery_id)
        self._gallery = gallery
        self._rows = None if valid.all() else valid.nonzero()[:, 0]
        self._dtype = torch.promote_types(query.dtype, self._read(slice(0, 0)).dtype)
        self._dtype = torch.promote_types(self._dtype, torch.float32)
        query = query.to(self._dtype)
        # Up to this length no distance overflows.
        limit = torch.finfo(self._dtype).max ** 0.5 / 4
        self._length = query.new_empty(self.size, 1)
        for images in self.blocks(BLOCK):
            self._length[images] = torch.linalg.vector_norm(
                self._read(images).to(self._dtype), dim=1, keepdim=True
            )
        for name, lengths in (
            ("query", torch.linalg.vector_norm(query, dim=1)), ("gallery", self._length),
        ):  # fmt: skip
            if not (lengths < limit).all():
                raise ValueError(f"{name} features hold values that are NaN, infinite or too large")
        # The length of a query changes none of its ranks. Lengths of 0 divide by 1.
        self._length.masked_fill_(self._length == 0, 1)
        # |q - g|^2 / 2 without |q|^2 / 2, which changes no rank. Differences of large squares lose
        # digits, so the origin is moved to an image: features far from zero are then small.
        self._origin = (
            None if distance == "cosine" else self._read(slice(0, 1)).to(self._dtype).sum(0)
        )
        self.left = -query if self._origin is None else self._origin - query

    def blocks(self, width: int) -> Iterator[slice]:
        """Yield slices of so many gallery images, the last of them shorter."""
        for first in range(0, self.size, width):
            yield slice(first, min(first + width, self.size))

    def take(self, images: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return right (B, D) and offset (B,) of some gallery images."""
        vectors = self._read(images).to(self._dtype)
        if self._origin is None:
            return vectors / self._length[images], vectors.new_zeros(len(vectors))
        right = vectors - self._origin
        return right, right.square().sum(1) / 2

    def _read(self, images: slice | Tensor) -> Tensor:
        """Return the features of some gallery images, on the device that computes."""
        device = self.query_id.device
        rows = images if self._rows is None else self._rows[images]
        if isinstance(self._gallery, Tensor):
            if isinstance(rows, slice):
                return self._gallery[rows].to(device)
            # `index_select` takes a seventh of the time of an index.
            return self._gallery.index_select(0, rows.to(self._gallery.device)).to(device)
        # A copy, as torch warns about read-only arrays such as pandas'.
        index = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return torch.from_numpy(np.array(self._gallery[index])).to(device)


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
    """Check the arguments of `per_query`, and return them ready to be ranked on one device.

    Raises:
        ValueError: as `per_query`, but for queries without a match.
    """
    refuse_unknown("distance", distance, DISTANCES)
    query = _tensor(query_features)
    gallery = (
        gallery_features if isinstance(gallery_features, Tensor) else np.asarray(gallery_features)
    )
    query_labels = _labels("query", query, query_ids, query_cameras, query.device)
    gallery_labels = _labels("gallery", gallery, gallery_ids, gallery_cameras, query.device)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query features hold {query.shape[1]} numbers each, gallery features "
            f"{gallery.shape[1]}: both must come from the same network"
        )
    return Comparison(query, gallery, query_labels, gallery_labels, distance)


def _tensor(values: Tensor | ArrayLike) -> Tensor:
    # A copy, as torch warns about read-only arrays such as pandas'.
    return values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def _labels(
    name: str,
    features: Tensor | NDArray[Any],
    ids: Tensor | ArrayLike,
    cameras: Tensor | ArrayLike,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return identities (N,) and cameras (N,) of features (N, D) on a device."""
    if "complex" in str(features.dtype):  # of NumPy or torch
        raise ValueError(f"{name} features are {features.dtype}: give real numbers")
    if features.ndim != 2:
        raise ValueError(f"{name} features have shape {tuple(features.shape)}, not (images, D)")
    identity, camera = (
        _integers(f"{name} {what}", labels).to(device).contiguous()
        for what, labels in (("identities", ids), ("cameras", cameras))
    )
    if not identity.shape == camera.shape == features.shape[:1]:
        raise ValueError(
            f"{name} features of {len(features)} images, but identities of shape "
            f"{tuple(identity.shape)} and cameras of shape {tuple(camera.shape)}"
        )
    return identity, camera


def _integers(name: str, labels: Tensor | ArrayLike) -> Tensor:
    """Return labels as int64; whole numbers may come as floats, as pandas has them."""
    values = labels if isinstance(labels, Tensor) else np.array(labels)
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{name} are {values.dtype}: give integers, as pandas.factorize does")
        values = torch.from_numpy(values)
    integers = values.to(torch.int64)
    # torch compares no unsigned integers of more than 8 bits. Those beyond int64 become negative.
    # NaN differs from all numbers.
    is_wrong = integers != values if values.dtype.is_signed else integers < 0
    wrong = is_wrong.nonzero()
    if len(wrong):
        value = values[tuple(wrong[0])].item()
        raise ValueError(f"{name} hold {value}: give integers, as pandas.factorize does")
    return integers


class _Matches:
    """The gallery images of each query's identity, in the order of the gallery.

    Attributes:
        most: the largest number of images of an identity of a query, P, at least 1.
    """

    def __init__(self, comparison: Comparison) -> None:
        # The images of query q's identity are by_id[start[q] : start[q] + count[q]]. Tables of
        # columns are padded with column G, which stands for an image infinitely far away.
        self.size = comparison.size
        sorted_id, by_id = comparison.gallery_id.sort(stable=True)
        self.by_id = torch.cat([by_id, by_id.new_tensor([self.size])])
        self.query_camera = comparison.query_camera
        self.gallery_camera = torch.cat(
            [comparison.gallery_camera, comparison.gallery_camera.new_zeros(1)]
        )
        self.start = torch.searchsorted(sorted_id, comparison.query_id)
        self.count = torch.searchsorted(sorted_id, comparison.query_id, right=True) - self.start
        self.most = max([1, *self.count.tolist()])

    def find(self, queries: slice) -> tuple[Tensor, Tensor]:
        """Return two (c, P) tables of columns for c queries.

        The first holds the images of the query's identity, padded with G. The second is the first
        with G in place of the images of the query's camera.
        """
        place = torch.arange(self.most, device=self.by_id.device)
        same_id = self.by_id[(self.start[queries, None] + place).clamp(max=self.size)]
        same_id = torch.where(place < self.count[queries, None], same_id, self.size)
        other_camera = self.gallery_camera[same_id] != self.query_camera[queries, None]
        return same_id, torch.where(other_camera, same_id, self.size)


def _score_at_once(
    comparison: Comparison, average_precision: str, reranking: KReciprocal | None
) -> Tensor:
    """Return (Q, 3), in the order of COLUMNS; NaN where no image matches."""
    left, size = comparison.left, comparison.size
    right, offset = comparison.take(slice(None))
    reranked_distances = None
    if reranking is not None:
        query = F.normalize(left) if comparison.distance == "cosine" else left
        reranked_distances = RerankedDistances(-query, right, reranking)
    positives = _Matches(comparison)
    chunk = max(1, CHUNK_BYTES // (PAIR_BYTES * (size + 3 * positives.most)))
    buffer = right.new_full((min(chunk, len(left)), size + 1), torch.inf)
    scores = torch.empty(len(left), len(COLUMNS), dtype=torch.float64, device=left.device)
    for first in range(0, len(left), chunk):
        rows = slice(first, first + chunk)
        costs = buffer[: len(left[rows])]
        if reranked_distances is None:
            torch.addmm(offset, left[rows], right.T, out=costs[:, :size])
        else:
            costs[:, :size] = reranked_distances.compute(rows)
        same_id, matches = positives.find(rows)
        bounds, order = costs.gather(1, matches).sort(dim=1, stable=True)
        costs.scatter_(1, same_id, torch.inf)
        nearer = _count_nearer(costs, bounds, matches.gather(1, order), 0)
        scores[rows] = _scores(_ranks(nearer, bounds), average_precision)
    return scores


def _score_by_blocks(comparison: Comparison, average_precision: str) -> Tensor:
    """Return what `_score_at_once` does, without a copy of the gallery."""
    left, positives = comparison.left, _Matches(comparison)
    scores = torch.empty(len(left), len(COLUMNS), dtype=torch.float64, device=left.device)
    # Some numbers of each match are kept for as many queries as possible, since each group of
    # queries reads the gallery anew.
    group = max(1, CHUNK_BYTES // (2 * PAIR_BYTES * positives.most))
    chunk = max(1, CHUNK_BYTES // (2 * left.element_size() * BLOCK))
    buffer = left.new_empty(min(chunk, len(left)), BLOCK + 1)

    def multiply(queries: slice, right: Tensor, offset: Tensor) -> Tensor:
        """Return costs (c, BLOCK + 1), the last column infinite."""
        costs = buffer[: len(left[queries])]
        torch.addmm(offset, left[queries], right.T, out=costs[:, :BLOCK])
        costs[:, BLOCK] = torch.inf
        return costs

    for start in range(0, len(left), group):
        stop = min(start + group, len(left))
        chunks = [slice(first, min(first + chunk, stop)) for first in range(start, stop, chunk)]
        tables = [positives.find(queries) for queries in chunks]
        bounds = [
            _find_bounds(comparison, matches, partial(multiply, queries))
            for queries, (_, matches) in zip(chunks, tables, strict=True)
        ]
        counts = [torch.zeros_like(ordered) for _, ordered in bounds]
        for images in comparison.blocks(BLOCK):
            columns = torch.arange(images.start, images.stop, device=left.device)
            right, offset = comparison.take(_pad(columns))
            for queries, (same_id, _), (limits, ordered), count in zip(
                chunks, tables, bounds, counts, strict=True
            ):
                costs = multiply(queries, right, offset)
                costs[:, images.stop - images.start :] = torch.inf
                place = same_id - images.start
                outside = (place < 0) | (place >= BLOCK)
                costs.scatter_(1, place.masked_fill_(outside, BLOCK), torch.inf)
                count += _count_nearer(costs, limits, ordered, images.start)
        for queries, (limits, _), count in zip(chunks, bounds, counts, strict=True):
            scores[queries] = _scores(_ranks(count, limits), average_precision)
    return scores


def _pad(columns: Tensor) -> Tensor:
    """Return columns with the last repeated up to BLOCK columns.

    All products then have one shape, in which equal vectors have equal costs in every column.
    """
    return F.pad(columns, (0, BLOCK - len(columns)), value=int(columns[-1]))


def _find_bounds(
    comparison: Comparison, matches: Tensor, multiply: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the costs of the matches of c queries, (c, P), ascending, and their columns.

    Args:
        comparison: of all images.
        matches: (c, P) columns, padded with G.
        multiply: the costs (c, BLOCK + 1) of right and offset.
    """
    bounds = comparison.left.new_full(matches.shape, torch.inf)
    for columns in matches[matches < comparison.size].unique().split(BLOCK):
        costs = multiply(*comparison.take(_pad(columns)))
        place = torch.searchsorted(columns, matches).clamp_(max=len(columns) - 1)
        bounds = torch.where(columns[place] == matches, costs.gather(1, place), bounds)
    bounds, order = bounds.sort(dim=1, stable=True)
    return bounds, matches.gather(1, order)


def _count_nearer(costs: Tensor, bounds: Tensor, matches: Tensor, first: int) -> Tensor:
    """Return how many images of a block come before each match, (c, P).

    Args:
        costs: (c, B), smaller is nearer, infinite for images that do not count.
        bounds: (c, P), the costs of the matches, ascending, padded with infinity.
        matches: (c, P), their columns in the gallery.
        first: column of the block's first image.
    """
    nearer, not_farther = _below(costs, bounds)
    # Where another image is exactly as far as a match, the gallery index decides. Ties are rare,
    # so for these few matches the whole row is compared.
    ties = ((not_farther > nearer) & (bounds != torch.inf)).nonzero()
    index = torch.arange(first, first + costs.shape[1], device=costs.device)
    for pairs in ties.split(max(1, len(costs) // 4)):
        row, place = pairs.T
        before = costs[row] == bounds[row, place, None]
        before &= index < matches[row, place, None]
        nearer[row, place] += before.sum(1)
    return nearer


def _ranks(nearer: Tensor, bounds: Tensor) -> Tensor:
    """Return (c, P) float64 ranks, ascending; infinite after a query's last match.

    Args:
        nearer: (c, P), other images that come before each match.
        bounds: (c, P), the costs of the matches, infinite after the last.
    """
    place = torch.arange(1, bounds.shape[1] + 1, device=bounds.device)
    return (place + nearer).double().masked_fill(bounds == torch.inf, torch.inf)


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
    # the order, but uses one core. All of this loop releases the interpreter's lock. Where many
    # numbers stand before the last match, choosing them takes longer than sorting all.
    last = bounds.masked_fill(bounds == torch.inf, -torch.inf).amax(1).numpy()
    rows, limits = costs.numpy(), bounds.numpy()
    less, not_more = np.empty((2, *limits.shape), np.int64)

    def count(indices: NDArray[np.int64]) -> None:
        for row in indices:
            is_near = rows[row] <= last[row]
            few = 8 * np.count_nonzero(is_near) < len(is_near)
            near = np.sort(rows[row][is_near] if few else rows[row])
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
