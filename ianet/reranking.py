"""k-reciprocal re-ranking (Zhong et al., Re-ranking Person Re-identification with k-reciprocal
Encoding, CVPR 2017); equations are numbered as there.

Two images that are each among the other's k nearest are likely the same person. An encoding of
each image p of query and gallery says how near its (expanded) k-reciprocal neighbours are. Images
are compared by their encodings:

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

No N x N matrix is ever in memory: distances are computed by chunks, and V has a few dozen entries
a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

CHUNK_BYTES = 128 * 2**20
"""About the most memory of a step, beside features, V and stored distances."""
STORE_BYTES = 2 * CHUNK_BYTES
"""Largest size of the distances of queries to the gallery that the search for neighbours stores
for Eq. 12. Larger ones are computed again, which takes a quarter longer."""
NOBODY = -1


@dataclass(frozen=True)
class KReciprocal:
    """Options of the re-ranking, with the paper's values for Market-1501.

    Attributes:
        k1: neighbours that may be reciprocal.
        k2: neighbours over which V is averaged; 1 leaves V unchanged.
        weight: of the distance d, lambda of Eq. 12.

    Raises:
        ValueError: a value out of its range.
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


class RerankedDistances:
    """Distances of queries to a gallery, re-ranked. N is the number of all images together."""

    def __init__(self, query: Tensor, gallery: Tensor, options: KReciprocal) -> None:
        """Find every image's neighbours, and encode the image by its neighbours.

        Args:
            query: (Q, D); unit length gives the distance of the angle.
            gallery: (G, D).
            options: of the method.
        """
        self.queries, self.weight = len(query), options.weight
        self.images = torch.cat([query, gallery])
        self.squares = self.images.square().sum(1)
        size = len(query) * len(gallery) * self.images.element_size()
        store = size <= STORE_BYTES
        self.query_gallery = self.images.new_empty(len(query), len(gallery)) if store else None
        number = min(max(options.k1 + 1, options.k2), len(self.images))
        self.nearest, self.near, self.largest = self._neighbours(number)
        encoding = self._encode(options.k1)
        if options.k2 > 1:
            encoding = self._averaging(options.k2) @ encoding  # Eq. 11
        self.query_rows = encoding[: self.queries].tocsr()
        self.gallery_columns = encoding[self.queries :].tocsc()

    def compute(self, rows: slice) -> Tensor:
        """Return d* (Eq. 12) of a slice of c queries to all of the gallery, (c, G)."""
        start, stop, _ = rows.indices(self.queries)
        rows = slice(start, stop)
        if self.query_gallery is None:
            squared = self._squared(rows, slice(self.queries, None))
        else:
            squared = self.query_gallery[rows]
        distances = squared / self.largest[rows, None]
        jaccard_rows = np.stack([self._jaccard(query) for query in range(start, stop)])
        jaccard = torch.from_numpy(jaccard_rows).to(distances)
        return (1 - self.weight) * jaccard + self.weight * distances

    def _squared(self, rows: slice, columns: slice) -> Tensor:
        """Return the squared distances of a slice of images to another, (rows, columns)."""
        squares = self.squares[rows, None] + self.squares[columns]
        return squares.addmm_(self.images[rows], self.images[columns].T, alpha=-2).clamp_(min=0)

    def _neighbours(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the nearest images of each image, the image itself first, (N, number), their
        squared distances, (N, number), and the largest squared distance of each image, (N,).
        """
        size = len(self.images)
        nearest = torch.zeros(size, number, dtype=torch.int64, device=self.images.device)
        near = self.squares.new_full((size, number), torch.inf)
        largest = torch.zeros_like(self.squares)

        def update(rows: slice, columns: slice, squared: Tensor) -> None:
            largest[rows] = torch.maximum(largest[rows], squared.amax(1))
            candidates = squared.topk(min(number, squared.shape[1]), largest=False)
            values = torch.cat([near[rows], candidates.values], 1)
            indices = torch.cat([nearest[rows], candidates.indices + columns.start], 1)
            near[rows], places = values.topk(number, largest=False)
            nearest[rows] = indices.gather(1, places)

        for rows in _chunks(size, 3 * size * self.images.element_size()):
            # Each pair once, as distances are symmetric.
            here, later = slice(rows.start, size), slice(rows.stop, size)
            squared = self._squared(rows, here)
            if self.query_gallery is not None and rows.start < self.queries:
                store = self.query_gallery[rows]
                store[:] = squared[: len(store), self.queries - rows.start :]
            squared.diagonal().fill_(-1)  # an equal image must not come before the image itself
            update(rows, here, squared)
            if rows.stop < size:
                update(later, rows, squared[:, rows.stop - rows.start :].T.contiguous())
        # Where all images are equal, every distance is 0, whatever the divisor is.
        return nearest, near.clamp_(min=0), largest.masked_fill_(largest == 0, 1)

    def _reciprocal(self, k: int) -> Tensor:
        """Return N(p, k) with NOBODY for images that are not in R(p, k) of Eq. 3, (N, k + 1)."""
        near = self.nearest[:, : k + 1]
        reciprocal = torch.empty_like(near)
        image = torch.arange(len(near), device=near.device)[:, None, None]
        for rows in _chunks(len(near), 9 * near.shape[1] ** 2):
            mutual = (near[near[rows]] == image[rows]).any(2)
            reciprocal[rows] = near[rows].masked_fill(~mutual, NOBODY)
        return reciprocal

    def _encode(self, k1: int) -> sparse.csr_array:
        """Return V of Eq. 7, each row normalised to 1, (N, N)."""
        reciprocal, half = self._reciprocal(k1), self._reciprocal(round(k1 / 2))
        width = reciprocal.shape[1]
        pairs = []
        for rows in _chunks(len(reciprocal), 10 * width**2 * half.shape[1]):
            core = reciprocal[rows]  # (c, K), R(p, k) with NOBODY in other places
            candidates = half[core].masked_fill(core[:, :, None] == NOBODY, NOBODY)  # (c, K, H)
            valid = candidates != NOBODY
            shared = (candidates[..., None] == core[:, None, None, :]).any(3) & valid
            joins = 3 * shared.sum(2) > 2 * valid.sum(2)
            extension = candidates.masked_fill(~joins[:, :, None], NOBODY).flatten(1)
            members = torch.cat([core, extension], 1).sort(1).values  # R*(p, k) of Eq. 4
            new = members != NOBODY
            new[:, 1:] &= members[:, 1:] != members[:, :-1]
            place, column = new.nonzero(as_tuple=True)
            pairs.append(torch.stack([place + rows.start, members[place, column]]))
        row, column = torch.cat(pairs, 1)
        values = np.exp(-self._between(row, column).double().cpu().numpy())
        size = len(self.images)
        rows_columns = (row.cpu().numpy(), column.cpu().numpy())
        encoding = sparse.csr_array((values, rows_columns), (size, size))
        return sparse.diags_array(1 / encoding.sum(1)) @ encoding

    def _between(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return d of pairs of images, (P,)."""
        squared = self.squares.new_empty(len(rows))
        near = torch.empty_like(rows, dtype=torch.bool)  # most pairs are neighbours
        for chunk in _chunks(len(rows), 20 * self.near.shape[1]):
            mask = self.nearest[rows[chunk]] == columns[chunk, None]
            squared[chunk], near[chunk] = (self.near[rows[chunk]] * mask).sum(1), mask.any(1)
        others = (~near).nonzero()[:, 0]
        for chunk in _chunks(len(others), 3 * self.images[0].nbytes):
            pairs = others[chunk]
            row, column = rows[pairs], columns[pairs]
            product = (self.images[row] * self.images[column]).sum(1)
            squared[pairs] = self.squares[row] + self.squares[column] - 2 * product
        return squared.clamp_(min=0) / self.largest[rows]

    def _averaging(self, k2: int) -> sparse.csr_array:
        """Return the matrix, (N, N), of means over the k2 nearest."""
        nearest = self.nearest[:, :k2].cpu().numpy()
        size, number = nearest.shape
        starts = np.arange(0, size * number + 1, number)
        values = np.full(size * number, 1 / number)
        return sparse.csr_array((values, nearest.ravel(), starts), (size, size))

    def _jaccard(self, query: int) -> NDArray[np.float64]:
        """Return d_J (Eq. 10) of a query to all of the gallery, (G,)."""
        rows, columns = self.query_rows, self.gallery_columns
        entries = slice(rows.indptr[query], rows.indptr[query + 1])
        neighbours, values = rows.indices[entries], rows.data[entries]
        starts = columns.indptr[neighbours]
        lengths = columns.indptr[neighbours + 1] - starts
        # Places of the entries of these columns, column by column.
        ends = lengths.cumsum()
        places = np.arange(ends[-1]) + np.repeat(starts - ends + lengths, lengths)
        least = np.minimum(np.repeat(values, lengths), columns.data[places])
        shared = np.bincount(columns.indices[places], least, minlength=columns.shape[0])
        return 1 - shared / (2 - shared)


def _chunks(size: int, bytes_each: int) -> list[slice]:
    """Return slices of `size` rows that take at most CHUNK_BYTES, at `bytes_each` a row."""
    step = max(1, CHUNK_BYTES // bytes_each)
    return [slice(first, min(first + step, size)) for first in range(0, size, step)]
