"""Re-ranking against the method written with whole matrices and sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ianet import reranking
from ianet.reranking import KReciprocal, RerankedDistances
from ianet.retrieval import evaluate


def clustered(people: int, images: int, seed: int = 0) -> NDArray[np.float64]:
    """(people * images, 8), a few neighbours of each image being other people's."""
    generator = np.random.default_rng(seed)
    centres = np.repeat(generator.normal(size=(people, 8)), images, axis=0)
    return centres + 0.9 * generator.normal(size=centres.shape)


def by_sets(
    query: NDArray[np.float64], gallery: NDArray[np.float64], options: KReciprocal
) -> NDArray[np.float64]:
    """d* (Eq. 12), (Q, G), one image, neighbour and entry after another."""
    images = np.concatenate([query, gallery])
    size = len(images)
    distance = ((images[:, None] - images) ** 2).sum(2)
    distance /= distance.max(1, keepdims=True)
    order = distance.argsort(1)

    def reciprocal(image: int, k: int) -> set[int]:
        return {other for other in order[image, : k + 1] if image in order[other, : k + 1]}

    vectors = np.zeros((size, size))
    for image in range(size):
        neighbours = reciprocal(image, options.k1)
        expanded = set(neighbours)
        for other in neighbours:
            theirs = reciprocal(other, round(options.k1 / 2))
            if len(theirs & neighbours) > 2 / 3 * len(theirs):
                expanded |= theirs
        for other in expanded:
            vectors[image, other] = np.exp(-distance[image, other])
        vectors[image] /= vectors[image].sum()
    vectors = np.stack([vectors[order[image, : options.k2]].mean(0) for image in range(size)])
    distances = np.empty((len(query), len(gallery)))
    for row in range(len(query)):
        for column in range(len(gallery)):
            pair = vectors[[row, len(query) + column]]
            jaccard = 1 - pair.min(0).sum() / pair.max(0).sum()
            own_distance = distance[row, len(query) + column]
            distances[row, column] = (1 - options.weight) * jaccard + options.weight * own_distance
    return distances


@pytest.mark.parametrize(
    "options",
    [
        KReciprocal(),
        KReciprocal(k1=7, k2=3, weight=0.5),
        KReciprocal(k1=1, k2=1, weight=0),
        KReciprocal(k1=200, k2=100),  # more than there are images
    ],
)
@pytest.mark.parametrize(("chunk", "kept"), [(1, 0), (1, 2**28), (2**27, 2**28)])
def test_equals_the_method_by_sets(
    options: KReciprocal, chunk: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranking, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(reranking, "STORE_BYTES", kept)
    images = clustered(people=6, images=8)
    query, gallery = images[::4], np.delete(images, np.s_[::4], axis=0)
    distances = RerankedDistances(torch.from_numpy(query), torch.from_numpy(gallery), options)
    assert (distances.query_gallery is None) == (kept == 0)
    expected = by_sets(query, gallery, options)
    np.testing.assert_allclose(
        distances.compute(slice(0, len(query))), expected, rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(distances.compute(slice(3, 5)), expected[3:5], rtol=0, atol=1e-12)


def test_a_hand_worked_pair() -> None:
    # On a line: a query at 0, its neighbour at 1, and an image at 10 that is nobody's neighbour.
    query, gallery = torch.tensor([[0.0]]), torch.tensor([[1.0], [10.0]])
    distances = RerankedDistances(query, gallery, KReciprocal(k1=1, k2=1, weight=0.3))
    # R* of 0 and of 1 is both; of 10 itself, as 1 has 0 nearer. d over the largest: of 0, 1 is at
    # 1/100; of 1, 0 is at 1/81.
    near, far = np.exp(-1 / 100), np.exp(-1 / 81)
    first = np.array([1, near]) / (1 + near)
    second = np.array([far, 1]) / (1 + far)
    shared = np.minimum(first, second).sum()
    expected = [0.7 * (1 - shared / (2 - shared)) + 0.3 / 100, 0.7 * 1 + 0.3 * 1]
    np.testing.assert_allclose(distances.compute(slice(0, 1))[0], expected, rtol=1e-6)


def test_scores_use_it() -> None:
    people, images = 12, 8
    features = clustered(people, images).astype(np.float32)
    ids, cameras = np.repeat(np.arange(people), images), np.tile(np.arange(images) % 2, people)
    asked = np.arange(len(ids)) % images == 0
    arguments = [each[mask] for each in (features, ids, cameras) for mask in (asked, ~asked)]
    plain = evaluate(*arguments)
    better = evaluate(*arguments, reranking=KReciprocal(k1=6, k2=3))
    assert better.queries == plain.queries == people
    assert better.mAP > plain.mAP
    # By the angle: lengths do not matter. By the distance: the origin does not.
    arguments[0] = arguments[0] * 5
    assert evaluate(*arguments, reranking=KReciprocal(k1=6, k2=3)).mAP == pytest.approx(better.mAP)
    moved = [features[asked], features[~asked], *arguments[2:]]
    here = evaluate(*moved, distance="euclidean", reranking=KReciprocal(k1=6, k2=3))
    moved[:2] = [moved[0] + 3, moved[1] + 3]
    there = evaluate(*moved, distance="euclidean", reranking=KReciprocal(k1=6, k2=3))
    assert there.mAP == pytest.approx(here.mAP)


@pytest.mark.parametrize("chunk", [1, 2**27])
def test_an_equal_image_does_not_come_before_itself(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reranking, "CHUNK_BYTES", chunk)
    images = torch.from_numpy(np.tile(clustered(people=4, images=2), (2, 1)))
    distances = RerankedDistances(images[:8], images[8:], KReciprocal(k1=2, k2=2))
    assert distances.nearest[:, 0].tolist() == list(range(16))
    assert distances.nearest[:, 1].tolist() == [(image + 8) % 16 for image in range(16)]
    assert torch.equal(distances.near[:, :2].round(decimals=9), torch.zeros(16, 2).double())


def test_images_that_are_all_alike_have_no_order_but_a_score() -> None:
    distances = RerankedDistances(torch.ones(2, 3), torch.ones(4, 3), KReciprocal(k1=2, k2=1))
    assert torch.isfinite(distances.compute(slice(0, 2))).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"k1": 0}, "k1 is 0"), ({"k2": 0}, "k2 is 0"), ({"weight": 1.5}, "weight is 1.5")],
)
def test_wrong_options_are_told(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KReciprocal(**changes)  # type: ignore[arg-type]
