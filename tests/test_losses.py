"""The batch-hard triplet loss against loops and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ianet.losses import batch_hard_triplet


def by_loops(embeddings: torch.Tensor, labels: torch.Tensor, margin: float) -> list[float]:
    losses = []
    for anchor, label in zip(embeddings.tolist(), labels.tolist(), strict=True):
        farthest, nearest = 0.0, math.inf
        for other, its in zip(embeddings.tolist(), labels.tolist(), strict=True):
            if its == label:
                farthest = max(farthest, math.dist(anchor, other))
            else:
                nearest = min(nearest, math.dist(anchor, other))
        losses.append(max(0.0, margin + farthest - nearest))
    return losses


@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 0, 1, 1, 1, 2, 2, 2],
        [2, 7, 2, 7, 2, 5, 5, 5, 7],  # in any order, not numbered from 0
        [0, 1, 1, 1, 1, 1, 2, 3, 3],  # one and two alone of their identity
        [0, 1, 2, 3, 4, 5, 6, 7, 8],  # no positives at all
        [4, 4, 4, 4, 4, 4, 4, 4, 4],  # no negatives at all
    ],
)
@pytest.mark.parametrize("margin", [0.3, 2.0])
def test_value(labels: list[int], margin: float) -> None:
    embeddings = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    expected = by_loops(embeddings, torch.tensor(labels), margin)
    result = batch_hard_triplet(embeddings, torch.tensor(labels), margin)
    assert result.tolist() == pytest.approx(expected)


def test_value_by_cosine_by_hand() -> None:
    """Directions of 0, 90, 180 and 60 degrees, of any length."""
    points = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-0.5, 0.0], [1.0, math.sqrt(3)]])
    result = batch_hard_triplet(points, torch.tensor([0, 0, 1, 1]), 0.25, "cosine")
    # 1 - cos: 1 - 0 against 1 - 1/2; 1 - 0 against 1 - cos 30; 1 + 1/2 against 1, and cos 30 again
    near = math.sqrt(3) / 2
    expected = [0.25 + 0.5, 0.25 + near, 0.25 + 0.5, 0.25 + 0.5 + near]
    assert result.tolist() == pytest.approx(expected, abs=1e-6)


def test_value_by_hand() -> None:
    """Points on a line: 0 and 3 against 4 and 9, margin 1."""
    points = torch.tensor([[0.0], [3.0], [4.0], [9.0]])
    result = batch_hard_triplet(points, torch.tensor([0, 0, 1, 1]), 1.0)
    # 1 + 3 - 4, 1 + 3 - 1, 1 + 5 - 1, 1 + 5 - 6
    assert result.tolist() == [0.0, 3.0, 5.0, 0.0]


def test_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(8, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3])
    assert torch.autograd.gradcheck(lambda x: batch_hard_triplet(x, labels, 5.0), embeddings)


def test_ties_share_the_gradient() -> None:
    """Two negatives at distance 2 on either side: neither pulls more than the other."""
    embeddings = torch.tensor([[0.0], [2.0], [-2.0]], requires_grad=True)
    loss = batch_hard_triplet(embeddings, torch.tensor([0, 1, 2]), 3.0)[0]
    assert loss.item() == 1.0
    loss.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.flatten().tolist() == [0.0, -0.5, 0.5]


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 2, 3]])
def test_equal_embeddings_have_finite_gradients(labels: list[int]) -> None:
    """An image that the sampler repeats may meet itself."""
    embeddings = torch.ones(4, 3, requires_grad=True)
    loss = batch_hard_triplet(embeddings, torch.tensor(labels), 0.3)
    assert loss.tolist() == pytest.approx([0.3 if len(set(labels)) > 1 else 0.0] * 4)
    loss.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().max() == 0


def test_close_embeddings_keep_their_distance() -> None:
    """Norms of 800, a distance of 0.01: a matrix product would lose it to rounding."""
    embeddings = torch.full((32, 64), 100.0)
    embeddings[0, 0] += 0.01
    labels = torch.zeros(32, dtype=torch.int64)
    labels[-1] = 1
    result = batch_hard_triplet(embeddings, labels, 0.0)
    assert result[1].item() == pytest.approx(0.01, rel=1e-2)
