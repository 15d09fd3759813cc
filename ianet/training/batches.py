"""Labels of persons, and the rows of an epoch's batches."""

from __future__ import annotations

import heapq

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def labels_of(persons: NDArray[np.integer]) -> Tensor:
    """Return identities numbered from 0 in ascending order, (N,) int64, alike in every process."""
    return torch.from_numpy(np.unique(persons, return_inverse=True)[1].astype(np.int64))


def batches(images: int, batch: int, generator: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return the rows of one epoch's batches: every image once, in random order.

    The batches differ by one image at most and have at most `batch`. So no batch is so small
    that its BatchNorm statistics are noise.
    """
    order = generator.permutation(images)
    return np.array_split(order, -(-images // batch))


def identity_batches(
    labels: NDArray[np.integer],
    batch: int,
    images_per_identity: int,
    generator: np.random.Generator,
) -> list[NDArray[np.int64]]:
    """Return the rows of one epoch's batches, each of P identities with K images each.

    An epoch has as many batches as `batches` returns, but all are full. Each batch draws P
    identities without replacement, in proportion to their images not yet seen in the epoch. The
    images of an identity have a random order in the epoch. A batch takes the next K of this order,
    and begins again after its end.

    So an image is seen once on average. As identities do not come in multiples of K, some images
    are seen twice and a few are not seen. The release of Bag of Tricks omits an identity's last
    images, and batches with fewer than P identities.

    The time is that of sorting the rows, N log N.

    Args:
        labels: (N,), the identity of each row.
        batch: P K.
        images_per_identity: K; an identity with fewer images repeats them within a batch.
        generator: of all random numbers.

    Raises:
        ValueError: fewer than P identities.
    """
    identities, indices, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    identities_per_batch = batch // images_per_identity
    if len(identities) < identities_per_batch:
        raise ValueError(
            f"a batch of {batch} with {images_per_identity} images an identity needs "
            f"{identities_per_batch} identities and there are {len(identities)}: lower the batch "
            "of the recipe"
        )
    shape = (-(-len(labels) // batch), identities_per_batch)
    winners, counts = _draw_identities(sizes, shape, images_per_identity, generator)
    # The rows of each identity in random order, identity after identity.
    order = generator.permutation(len(labels))
    order = order[np.argsort(indices[order], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    places = (counts[..., None] + np.arange(images_per_identity)) % sizes[winners, None]
    rows = order[starts[winners, None] + places]
    return list(rows.reshape(len(rows), -1))


def _draw_identities(
    sizes: NDArray[np.integer],
    shape: tuple[int, int],
    images_per_identity: int,
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the identities of an epoch's batches, as a race of exponential clocks.

    A clock runs at the rate of the identity's images that no batch took. The first P clocks of a
    race win in proportion to their rates, without replacement. An exponential clock has no memory:
    after a race, the remaining time of a loser has the law of a new clock. So losers keep their
    clocks for the next race, and winners alone get new ones.

    Args:
        sizes: number of images by identity.
        shape: of the result, batches and P.
        images_per_identity: that a batch takes of an identity.
        generator: of all random numbers.

    Returns:
        The identities, and how many images earlier batches took of each, both of `shape`.
    """
    remaining = sizes.tolist()
    clocks = (generator.standard_exponential(len(sizes)) / sizes).tolist()
    race = list(zip(clocks, range(len(sizes)), strict=True))
    heapq.heapify(race)
    winners, left = [], []
    for waits in generator.standard_exponential(shape).tolist():
        first = [heapq.heappop(race) for _ in waits]
        end, _ = first[-1]
        for wait, (_, identity) in zip(waits, first, strict=True):
            winners.append(identity)
            left.append(remaining[identity])
            remaining[identity] -= images_per_identity
            # Identities without images left hardly run, and come last.
            rate = max(remaining[identity], 1e-9)
            heapq.heappush(race, (end + wait / rate, identity))
    identities = np.array(winners).reshape(shape)
    return identities, sizes[identities] - np.array(left).reshape(shape)
