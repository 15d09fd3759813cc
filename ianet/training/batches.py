"""Labels of persons, and the rows of an epoch's batches."""

from __future__ import annotations

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

    Args:
        labels: (N,), the identity of each row.
        batch: P K.
        images_per_identity: K; an identity with fewer images repeats them within a batch.
        generator: of all random numbers.

    Raises:
        ValueError: fewer than P identities.
    """
    identities, sizes = np.unique(labels, return_counts=True)
    identities_per_batch = batch // images_per_identity
    if len(identities) < identities_per_batch:
        raise ValueError(
            f"a batch of {batch} with {images_per_identity} images an identity needs "
            f"{identities_per_batch} identities and there are {len(identities)}: lower the batch "
            "of the recipe"
        )
    orders = [generator.permutation(np.flatnonzero(labels == identity)) for identity in identities]
    counts = np.zeros_like(sizes)  # of the images that batches took, by identity
    epoch = []
    for _ in range(-(-len(labels) // batch)):
        # The first of a race of exponential clocks win in proportion to their rates. Identities
        # without images left hardly run, and come last.
        remaining = np.maximum(sizes - counts, 1e-9)
        winners = np.argsort(generator.exponential(1 / remaining))[:identities_per_batch]
        places = counts[winners, None] + np.arange(images_per_identity)
        rows = [
            orders[winner].take(place, mode="wrap")
            for winner, place in zip(winners, places, strict=True)
        ]
        epoch.append(np.concatenate(rows))
        counts[winners] += images_per_identity
    return epoch
