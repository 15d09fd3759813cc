"""k-reciprocal re-ranking (Zhong et al., Re-ranking Person Re-identification with k-reciprocal
Encoding, CVPR 2017); equations are numbered as there.

Two images that are each among the other's k nearest are likely the same person. Each image p of
query and gallery together is described by how near its (expanded) k-reciprocal neighbours are,
and images are compared by these descriptions:

    R(p, k)     the q in N(p, k) with p in N(q, k)                                  (Eq. 3)
    R*(p, k)    R(p, k), with R(q, k/2) for each q in R(p, k) of which more than two thirds lie in
                R(p, k)                                                             (Eq. 4)
    V(p, q)     exp(-d(p, q)) for q in R*(p, k), else 0                             (Eq. 7)
    V(p)        the mean of V over the k2 nearest of p                              (Eq. 11)
    d_J(p, g)   1 - sum min(V(p), V(g)) / sum max(V(p), V(g))                       (Eq. 10)
    d*(p, g)    (1 - weight) d_J + weight d                                         (Eq. 12)

As in the authors' code, N(p, k) holds k + 1 images, p the first of them; d is the squared distance
over the largest from p; rows of V are normalised to 1 before Eq. 11, so that the sums in Eq. 10
are s and 2 - s.

The N x N matrices that this is usually written with are never made: distances are computed by
chunks, and V has a few dozen entries a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

CHUNK_BYTES = 128 * 2**20
"""Most memory, beside features, V and what is kept, that any one step takes, roughly."""
KEPT_BYTES = 2 * CHUNK_BYTES
"""Up to this size the distances of the queries to the gallery, which the search for neighbours
computes, are kept for Eq. 12; else they are computed again, which takes a quarter longer."""
NOBODY = -1


@dataclass(frozen=True)
class KReciprocal:
    """Options of the re-ranking, with the paper's values for Market-1501.

    Attributes:
        k1: neighbours that may be reciprocal.
        k2: neighbours over which V is averaged; 1 leaves it as it is.
        weight: of the distance itself, lambda of Eq. 12.
    """

    k1: int = 20
    k2: int = 6
    weight: float = 0.3

    def __post_init__(self) -> None:
        for name in ("k1", "k2"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight is {self.weight}: it must lie in 0 to 1")


class Reranked:
    """Distances of queries to a gallery, re-ranked. N is the number of all images together."""

    def __init__(self, query: Tensor, gallery: Tensor, options: KReciprocal) -> None:
        """Find every image's neighbours and describe it by them.

        Args:
            query: (Q, D), of unit length where the distance is to be that of the angle.
            gallery: (G, D).
            options: of the method.
        """
        self.queries, self.weight = len(query), options.weight
        self.images = torch.cat([query, gallery])
        self.squares = self.images.square().sum(1)
        size = len(query) * len(gallery) * self.images.element_size()
        self.kept = self.images.new_empty(len(query), len(gallery)) if size <= KEPT_BYTES else None
        number = min(max(options.k1 + 1, options.k2), len(self.images))
        self.nearest, self.near, self.largest = self._neighbours(number)
        described = self._described(options.k1)
        if options.k2 > 1:
            described = self._averaging(options.k2) @ described  # Eq. 11
        self.query_rows = described[: self.queries].tocsr()
        self.gallery_columns = described[self.queries :].tocsc()

    def rows(self, rows: slice) -> Tensor:
        """d* (Eq. 12) of some queries to all of the gallery, (c, G)."""
        start, stop, _ = rows.indices(self.queries)
        rows = slice(start, stop)
        if self.kept is None:
            squared = self._squared(rows, slice(self.queries, None))
        else:
            squared = self.kept[rows]
        distances = squared / self.largest[rows, None]
        jaccard = np.stack([self._jaccard(query) for query in range(start, stop)])
        own = torch.from_numpy(jaccard).to(distances)
        return (1 - self.weight) * own + self.weight * distances

    def _squared(self, rows: slice, columns: slice) -> Tensor:
        """Squared distances of some images to others, (rows, columns)."""
        squares = self.squares[rows, None] + self.squares[columns]
        return squares.addmm_(self.images[rows], self.images[columns].T, alpha=-2).clamp_(min=0)

    def _neighbours(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """The nearest images of each, itself first, (N, number); their squared distances; its
        largest one.
        """
        size = len(self.images)
        nearest = torch.zeros(size, number, dtype=torch.int64, device=self.images.device)
        near = self.squares.new_full((size, number), torch.inf)
        largest = torch.zeros_like(self.squares)

        def meet(rows: slice, columns: slice, squared: Tensor) -> None:
            largest[rows] = torch.maximum(largest[rows], squared.amax(1))
            found = squared.topk(min(number, squared.shape[1]), largest=False)
            known = torch.cat([near[rows], found.values], 1)
            names = torch.cat([nearest[rows], found.indices + columns.start], 1)
            near[rows], places = known.topk(number, largest=False)
            nearest[rows] = names.gather(1, places)

        for rows in _chunks(size, 3 * size * self.images.element_size()):
            # Each pair once: what is far for the one is as far for the other.
            here, later = slice(rows.start, size), slice(rows.stop, size)
            squared = self._squared(rows, here)
            if self.kept is not None and rows.start < self.queries:
                kept = self.kept[rows]
                kept[:] = squared[: len(kept), self.queries - rows.start :]
            squared.diagonal().fill_(-1)  # an equal image must not come before it
            meet(rows, here, squared)
            if rows.stop < size:
                meet(later, rows, squared[:, rows.stop - rows.start :].T.contiguous())
        # Where all images are alike every distance is 0, whatever it is divided by.
        return nearest, near.clamp_(min=0), largest.masked_fill_(largest == 0, 1)

    def _reciprocal(self, k: int) -> Tensor:
        """R(p, k) of Eq. 3 as a row of N(p, k) in which others are NOBODY, (N, k + 1)."""
        near = self.nearest[:, : k + 1]
        found = torch.empty_like(near)
        own = torch.arange(len(near), device=near.device)[:, None, None]
        for rows in _chunks(len(near), 9 * near.shape[1] ** 2):
            mutual = (near[near[rows]] == own[rows]).any(2)
            found[rows] = near[rows].masked_fill(~mutual, NOBODY)
        return found

    def _described(self, k1: int) -> sparse.csr_array:
        """V of Eq. 7, each row normalised to 1, (N, N)."""
        reciprocal, half = self._reciprocal(k1), self._reciprocal(round(k1 / 2))
        width = reciprocal.shape[1]
        pairs = []
        for rows in _chunks(len(reciprocal), 10 * width**2 * half.shape[1]):
            own = reciprocal[rows]  # (c, K), NOBODY where there is none
            theirs = half[own].masked_fill(own[:, :, None] == NOBODY, NOBODY)  # (c, K, H)
            known = theirs != NOBODY
            shared = (theirs[..., None] == own[:, None, None, :]).any(3) & known
            joins = 3 * shared.sum(2) > 2 * known.sum(2)
            joined = theirs.masked_fill(~joins[:, :, None], NOBODY).flatten(1)
            members = torch.cat([own, joined], 1).sort(1).values  # R*(p, k) of Eq. 4
            new = members != NOBODY
            new[:, 1:] &= members[:, 1:] != members[:, :-1]
            place, column = new.nonzero(as_tuple=True)
            pairs.append(torch.stack([place + rows.start, members[place, column]]))
        row, column = torch.cat(pairs, 1)
        values = np.exp(-self._between(row, column).double().cpu().numpy())
        size = len(self.images)
        found = sparse.csr_array((values, (row.cpu().numpy(), column.cpu().numpy())), (size, size))
        return sparse.diags_array(1 / found.sum(1)) @ found

    def _between(self, rows: Tensor, columns: Tensor) -> Tensor:
        """d of pairs of images, (P,)."""
        squared = self.squares.new_empty(len(rows))
        found = torch.empty_like(rows, dtype=torch.bool)  # in the search: most of them
        for part in _chunks(len(rows), 20 * self.near.shape[1]):
            known = self.nearest[rows[part]] == columns[part, None]
            squared[part], found[part] = (self.near[rows[part]] * known).sum(1), known.any(1)
        others = (~found).nonzero()[:, 0]
        for part in _chunks(len(others), 3 * self.images[0].nbytes):
            pairs = others[part]
            row, column = rows[pairs], columns[pairs]
            product = (self.images[row] * self.images[column]).sum(1)
            squared[pairs] = self.squares[row] + self.squares[column] - 2 * product
        return squared.clamp_(min=0) / self.largest[rows]

    def _averaging(self, k2: int) -> sparse.csr_array:
        """(N, N), the mean over the k2 nearest."""
        nearest = self.nearest[:, :k2].cpu().numpy()
        size, number = nearest.shape
        starts = np.arange(0, size * number + 1, number)
        values = np.full(size * number, 1 / number)
        return sparse.csr_array((values, nearest.ravel(), starts), (size, size))

    def _jaccard(self, query: int) -> NDArray[np.float64]:
        """d_J (Eq. 10) of a query to all of the gallery, (G,)."""
        described, columns = self.query_rows, self.gallery_columns
        own = slice(described.indptr[query], described.indptr[query + 1])
        shared_with, values = described.indices[own], described.data[own]
        starts = columns.indptr[shared_with]
        lengths = columns.indptr[shared_with + 1] - starts
        # Where the entries of these columns are, one column after another.
        ends = lengths.cumsum()
        places = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
        least = np.minimum(np.repeat(values, lengths), columns.data[places])
        shared = np.bincount(columns.indices[places], least, minlength=columns.shape[0])
        return 1 - shared / (2 - shared)


def _chunks(size: int, bytes_each: int) -> list[slice]:
    """Slices of `size` rows, of which each takes so many bytes."""
    step = max(1, CHUNK_BYTES // bytes_each)
    return [slice(first, min(first + step, size)) for first in range(0, size, step)]
