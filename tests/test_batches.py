"""Labels and batches: every image, their law, their order."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from small import CPU, data, recipe, small

from ianet.training.batches import batches, identity_batches, labels_of
from ianet.training.fit import fit


def test_labels_ascend_with_the_identities() -> None:
    assert labels_of(np.array([1501, 7, 7, 22])).tolist() == [2, 0, 0, 1]


@pytest.mark.parametrize(("images", "batch"), [(20, 6), (12936, 32), (5, 8), (33, 32)])
def test_every_image_once_an_epoch_in_even_batches(images: int, batch: int) -> None:
    epoch = batches(images, batch, np.random.default_rng(1))
    sizes = {len(rows) for rows in epoch}
    assert sorted(np.concatenate(epoch)) == list(range(images))
    assert len(epoch) == math.ceil(images / batch)
    assert max(sizes) <= batch
    assert max(sizes) - min(sizes) <= 1


def many(seed: int) -> np.ndarray:
    """200 identities with 1 to 20 images, in no order, some numbers of identities unused."""
    generator = np.random.default_rng(seed)
    return generator.permutation(np.repeat(np.arange(200) * 3, generator.integers(1, 21, 200)))


@pytest.mark.parametrize(
    ("labels", "batch", "images_per_identity"),
    [
        (many(0), 64, 4),
        (many(1), 30, 6),
        (np.arange(20) % 5, 6, 2),
        (np.arange(20) % 5, 20, 4),  # every identity in every batch
        (np.array([0] * 50 + [1, 2, 3]), 6, 2),  # one identity has nearly all images
        (np.arange(3), 12, 4),  # an image an identity
        (np.arange(20) % 5, 3, 1),
    ],
)
def test_identity_batches(labels: np.ndarray, batch: int, images_per_identity: int) -> None:
    epoch = identity_batches(labels, batch, images_per_identity, np.random.default_rng(1))
    assert len(epoch) == math.ceil(len(labels) / batch)
    available = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    for rows in epoch:
        identities, counts = np.unique(labels[rows], return_counts=True)
        assert len(identities) == batch // images_per_identity
        assert set(counts) == {images_per_identity}
        for identity in identities:
            images = rows[labels[rows] == identity]
            # As many different images as there are: repeated only where there are fewer than K.
            assert len(set(images)) == min(images_per_identity, available[identity])


def test_identity_batches_show_about_every_image() -> None:
    labels = many(2)
    seen = np.zeros(len(labels))
    for epoch in range(20):
        rows = np.concatenate(identity_batches(labels, 64, 4, np.random.default_rng([0, epoch])))
        assert len(set(rows)) > 0.9 * len(labels)
        # An image comes again only where its identity's images are not a multiple of K.
        counts = np.bincount(rows, minlength=len(labels))
        assert (counts[np.bincount(labels)[labels] >= 4] <= 2).all()
        seen += counts
    assert seen.mean() / 20 == pytest.approx(1, abs=64 / len(labels))
    assert seen.min() > 0
    # Each epoch is another one, and the same one again from the same seed.
    again, other = (identity_batches(labels, 64, 4, np.random.default_rng([0, e])) for e in (19, 0))
    assert np.array_equal(np.concatenate(again), rows)
    assert not np.array_equal(np.concatenate(other), rows)


def draw_chances(remaining: tuple[int, ...], places: int) -> dict[frozenset[int], float]:
    """The chance of each set of identities that a batch may draw, one identity after the other."""
    if places == 0:
        return {frozenset(): 1.0}
    chances: Counter[frozenset[int]] = Counter()
    total = sum(remaining)
    for identity, images in enumerate(remaining):
        if images:
            rest = (*remaining[:identity], 0, *remaining[identity + 1 :])
            for others, chance in draw_chances(rest, places - 1).items():
                chances[others | {identity}] += images / total * chance
    return chances


def epoch_chances(
    remaining: tuple[int, ...], steps: int
) -> dict[tuple[frozenset[int], ...], float]:
    """The chance of each sequence of batches with two identities, an image each."""
    if steps == 0:
        return {(): 1.0}
    chances = {}
    for batch, chance in draw_chances(remaining, 2).items():
        rest = tuple(images - (identity in batch) for identity, images in enumerate(remaining))
        for others, other in epoch_chances(rest, steps - 1).items():
            chances[(batch, *others)] = chance * other
    return chances


def test_identity_batches_have_their_law() -> None:
    """All sequences of three batches have the chances that the docstring gives."""
    sizes = (4, 3, 2, 2)
    labels = np.repeat(np.arange(4), sizes)
    expected = epoch_chances(sizes, 3)
    assert sum(expected.values()) == pytest.approx(1)
    assert len(expected) > 50
    epochs = 20_000
    generator = np.random.default_rng(0)
    counts = Counter(
        tuple(
            frozenset(labels[rows].tolist())
            for rows in identity_batches(labels, 2, 1, generator)[:3]
        )
        for _ in range(epochs)
    )
    assert set(counts) <= set(expected)
    # Chi-squared over the sequences that are expected often enough, and over all others together.
    frequent = {batches: epochs * chance for batches, chance in expected.items() if chance > 5e-4}
    squares = [(counts[batches] - mean) ** 2 / mean for batches, mean in frequent.items()]
    rest = epochs - sum(frequent.values())
    squares.append((epochs - sum(counts[batches] for batches in frequent) - rest) ** 2 / rest)
    freedom = len(squares) - 1
    assert abs(sum(squares) - freedom) < 4 * math.sqrt(2 * freedom)


def test_images_of_an_identity_come_in_every_order() -> None:
    generator = np.random.default_rng(0)
    orders = Counter(
        tuple(identity_batches(np.array([7, 7, 7]), 3, 3, generator)[0].tolist())
        for _ in range(6000)
    )
    assert len(orders) == 6
    assert all(abs(count - 1000) < 150 for count in orders.values())


def test_images_of_an_identity_begin_again_after_their_end() -> None:
    generator = np.random.default_rng(0)
    first, second = identity_batches(np.array([7, 7, 7]), 2, 2, generator)
    assert set(first) | set(second) == {0, 1, 2}
    assert second[1] == first[0]
    (rows,) = identity_batches(np.array([7, 7]), 4, 4, generator)
    assert rows[0] != rows[1]
    assert list(rows[2:]) == list(rows[:2])


def test_identities_without_images_left_come_last() -> None:
    """Identity 0 is in each batch as long as one of its 50 images is left."""
    labels = np.array([0] * 50 + [1, 2, 3])
    for seed in range(20):
        epoch = identity_batches(labels, 6, 2, np.random.default_rng(seed))
        assert [0 in labels[rows] for rows in epoch] == [True] * 9
        # Each other identity takes its turn first, then all are drawn alike.
        assert set(labels[np.concatenate(epoch[:2])]) == {0, 1, 2, 3}


def test_too_few_identities_for_a_batch() -> None:
    with pytest.raises(ValueError, match="batch of 12 with 2 images an identity needs 6 identitie"):
        list(fit(small(), *data(), recipe(batch=12, images_per_identity=2), seed=0, device=CPU))
