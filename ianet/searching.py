"""Exact search: the k nearest images of a gallery, which may be larger than memory.

Features are compared by the cosine distance, 1 - cos, from 0 (the same direction) to 2. Equal
distances are ranked by the place in the gallery. The distances of equal features may differ in
their last digit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ianet.feature_table import Embedding, FeatureTable, Identity, check_comparable

PAIRS = 2**21  # of a query and a gallery image that are compared at a time: 60 MB
PLACE = 2**32 - 1  # the bits of a key that hold a place in the gallery


class Gallery(Embedding, Protocol):
    """Features that are searched: a `FeatureTable`, a `FeatureFile` or a `JointGallery`."""

    def labels(self) -> pd.DataFrame:
        """Return path, person and camera of each picture, "" where unknown."""
        ...

    def blocks(self) -> Iterator[FeatureTable]:
        """Yield the features in order, some at a time."""
        ...


@dataclass(frozen=True)
class JointGallery:
    """Several galleries as one, in order; a picture of two of them is two neighbours.

    Attributes:
        parts: at least one, of one model and one `flip`.

    Raises:
        ValueError: no part, or as `check_comparable`.
    """

    parts: Sequence[Gallery]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("there is no gallery: give at least one")
        for number, part in enumerate(self.parts, 1):
            check_comparable(self, part, ("gallery 1", f"gallery {number}"))

    @property
    def model(self) -> Identity:
        return self.parts[0].model

    @property
    def flip(self) -> bool:
        return self.parts[0].flip

    def labels(self) -> pd.DataFrame:
        return pd.concat([part.labels() for part in self.parts], ignore_index=True)

    def blocks(self) -> Iterator[FeatureTable]:
        for part in self.parts:
            yield from part.blocks()


def search(
    queries: FeatureTable,
    gallery: Gallery,
    k: int,
    advance: Callable[[int], object] = lambda pictures: None,
) -> pd.DataFrame:
    """Return the k nearest pictures of each query.

    A picture is no neighbour of itself: gallery pictures with the path of the query, absolute or
    relative, are left out.

    Args:
        queries: of one model with the gallery.
        gallery: to search.
        k: at least 1.
        advance: receives the number of pictures of each block.

    Returns:
        A row for each query and rank: query, rank (from 1), path, distance, query_person, person,
        camera, and right, whether both are the same person; NA where a person is unknown.

    Raises:
        ValueError: as `check_comparable`, `find_neighbours` and the blocks.
    """
    check_comparable(queries, gallery)
    labels = gallery.labels()
    resolve_folder = cache(os.path.realpath)

    def resolve(path: str) -> str:
        folder, name = os.path.split(path)
        return f"{resolve_folder(folder)}/{name}"

    query_paths = pd.Index([*map(resolve, queries.paths)], name="path")
    places = pd.Series(np.arange(len(queries)), index=query_paths)
    paths = labels.path.map(resolve)
    itself = paths[paths.isin(query_paths)]
    pairs = itself.reset_index().merge(places.rename("query").reset_index(), on="path")
    excluded = zip(pairs["query"], pairs["index"], strict=True)

    def blocks() -> Iterator[NDArray[np.float32]]:
        for block in gallery.blocks():
            yield block.features
            advance(len(block))

    nearest = find_neighbours(queries.features, blocks(), k, excluded)
    query, rank = (nearest.indices >= 0).nonzero()
    neighbours = labels.iloc[nearest.indices[query, rank]].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "query": pd.Series(queries.paths).iloc[query].to_numpy(),
            "rank": rank + 1,
            "path": neighbours.path,
            "distance": nearest.distances[query, rank],
            "query_person": pd.Series(queries.persons).iloc[query].to_numpy(),
            "person": neighbours.person,
            "camera": neighbours.camera,
        }
    )
    is_known = (table.query_person != "") & (table.person != "")
    right = (table.query_person == table.person).astype("boolean")
    return table.assign(right=right.where(is_known))


class Neighbours(NamedTuple):
    """The nearest images of each query, nearest first; n is k, or the gallery if that is smaller.

    Attributes:
        distances: (Q, n) float32.
        indices: (Q, n) int64, places in the gallery; -1 where fewer than n images are left.
    """

    distances: NDArray[np.float32]
    indices: NDArray[np.int64]


@torch.inference_mode()
def find_neighbours(
    queries: NDArray[np.float32],
    blocks: Iterable[NDArray[np.float32]],
    k: int,
    excluded: Iterable[tuple[int, int]] = (),
) -> Neighbours:
    """Return the k nearest images of each query.

    Args:
        queries: (Q, D).
        blocks: of the gallery, (B, D) each. One block at a time is in memory.
        k: at least 1.
        excluded: pairs of a query and a place in the gallery that are left out.

    Raises:
        ValueError: k is less than 1, a block with other features than the queries, or features
            that are not finite or too large for float32.
    """
    if k < 1:
        raise ValueError(f"k is {k}: it must be 1 at least")
    query = _normalize("query", queries)
    # A key holds a distance in its upper 32 bits and a place in its lower: the least k are exact.
    best = torch.empty(len(query), 0, dtype=torch.int64)
    pairs = torch.tensor(sorted(excluded, key=lambda pair: pair[1]), dtype=torch.int64)
    pairs = pairs.reshape(-1, 2)
    first = 0
    for block in blocks:
        if block.shape[1] != query.shape[1]:
            raise ValueError(
                f"a gallery feature has {block.shape[1]} numbers and a query feature "
                f"{query.shape[1]}: both must come from the same model"
            )
        gallery = _normalize("gallery", block)
        bounds = torch.tensor([first, first + len(block)])
        start, end = torch.searchsorted(pairs[:, 1].contiguous(), bounds).tolist()
        best = _merge(best, query, gallery, first, pairs[start:end], k)
        first += len(block)
    distances = _from_ordered(best >> 32)
    indices = torch.where(distances.isinf(), -1, best & PLACE)
    return Neighbours(distances.numpy(), indices.numpy())


def _normalize(name: str, features: NDArray[np.float32]) -> Tensor:
    """Return features (N, D) of length 1; a zero vector stays zero."""
    vectors = torch.from_numpy(features)
    if not torch.linalg.vector_norm(vectors, dim=1).isfinite().all():
        raise ValueError(f"{name} features hold values that are NaN, infinite or too large")
    return F.normalize(vectors, dim=1)


def _merge(
    best: Tensor, query: Tensor, gallery: Tensor, first: int, excluded: Tensor, k: int
) -> Tensor:
    """Return the least k keys of `best` and of a block that begins at a place in the gallery."""
    count = min(k, best.shape[1] + len(gallery))
    result = torch.empty(len(query), count, dtype=torch.int64)
    step = max(1, PAIRS // max(1, len(gallery)))
    for start in range(0, len(query), step):
        rows = slice(start, start + step)
        distances = (1 - query[rows] @ gallery.T).clamp_(min=0)
        pairs = excluded[(excluded[:, 0] >= start) & (excluded[:, 0] < start + step)]
        distances[pairs[:, 0] - start, pairs[:, 1] - first] = torch.inf
        keys = torch.cat([best[rows], _find_least(distances, first, k)], dim=1)
        result[rows] = keys.topk(count, dim=1, largest=False).values
    return result


def _find_least(distances: Tensor, first: int, k: int) -> Tensor:
    """Return the least k keys of each row, or all if there are fewer columns."""
    count, columns = min(k, distances.shape[1]), distances.shape[1]
    values, places = distances.topk(min(k + 1, columns), dim=1, largest=False)
    keys = ((_to_ordered(values) << 32) | (places + first))[:, :count]
    if count < columns:
        # Of equal distances topk takes any. In the few rows where the last of the k has an equal
        # among the others, the place decides.
        ties = (values[:, -2] == values[:, -1]).nonzero().squeeze(1)
        block_places = torch.arange(first, first + columns)
        tied_keys = (_to_ordered(distances[ties]) << 32) | block_places
        keys[ties] = tied_keys.topk(count, dim=1, largest=False).values
    return keys


def _to_ordered(distances: Tensor) -> Tensor:
    """Return int64 in the order of the distances, whose bits are in order as none is negative."""
    return distances.view(torch.int32).long()


def _from_ordered(keys: Tensor) -> Tensor:
    return keys.int().view(torch.float32)
