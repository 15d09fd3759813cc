"""Single-gallery-shot CMC: by hand, against every possible draw, and against many random ones."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ianet import single_shot

Case = dict[str, Any]


def random_case(seed: int, queries: int = 6, gallery: int = 14) -> Case:
    """Few identities and cameras, junk, and features of +-1 that are often tied."""
    draw = np.random.default_rng(seed)
    case: Case = {}
    for name, images, lowest in (("query", queries, 1), ("gallery", gallery, -1)):
        case[f"{name}_features"] = np.sign(draw.standard_normal((images, 4)))
        case[f"{name}_ids"] = draw.integers(lowest, 5, images)
        case[f"{name}_cameras"] = draw.integers(1, 4, images)
    return case


def galleries(case: Case, query: int) -> tuple[list[list[int]], NDArray[np.int64]]:
    """What may be drawn for each identity, the query's own first, and the place of each image."""
    features, ids = case["gallery_features"], case["gallery_ids"]
    identity, camera = case["query_ids"][query], case["query_cameras"][query]
    far = -(features @ case["query_features"][query])  # all features are of one length
    place = np.empty(len(far), int)
    place[sorted(range(len(far)), key=lambda g: (far[g], g))] = range(len(far))
    images = {
        person: [
            g
            for g in np.flatnonzero(ids == person)
            if person != identity or case["gallery_cameras"][g] != camera
        ]
        for person in [identity, *sorted(set(ids) - {identity, -1})]
    }
    return [choice for person, choice in images.items() if choice or person == identity], place


def every_draw(case: Case, max_rank: int) -> dict[int, list[float]]:
    """The definition: the mean over all galleries that may be drawn, each as likely."""
    curves = {}
    for query in range(len(case["query_ids"])):
        choices, place = galleries(case, query)
        if not choices[0]:
            continue
        ranks = [
            1 + sum(place[other] < place[place_of_identity] for other in others)
            for place_of_identity, *others in itertools.product(*choices)
        ]
        curves[query] = [np.mean(np.array(ranks) <= k) for k in range(1, max_rank + 1)]
    return curves


# One query, identity 1, camera 1, at 0; images stand on a line. Identity 1 is at 2 and 5 (and at
# 1, but on the query's camera); identity 2 at 1 and 3; identity 3 at 4, 6, 6; junk at 0.
# Own image at 2 (chance 1/2): identity 2 is before it with chance 1/2, identity 3 never.
#     rank 1: 1/2, rank 2: 1/2
# Own image at 5 (chance 1/2): identity 2 always, identity 3 with chance 1/3.
#     rank 2: 2/3, rank 3: 1/3
# Together rank 1: 1/4, rank 2: 1/4 + 1/3 = 7/12, rank 3: 1/6.
PLACES = [1, 2, 5, 1, 3, 4, 6, 6, 0]
WORKED: Case = {
    "query_features": torch.zeros(1, 1),
    "gallery_features": torch.tensor(PLACES).float()[:, None],
    "query_ids": [1],
    "gallery_ids": [1, 1, 1, 2, 2, 3, 3, 3, -1],
    "query_cameras": [1],
    "gallery_cameras": [1, 2, 2, 1, 2, 2, 2, 2, 2],
    "distance": "euclidean",
}


def test_worked_by_hand() -> None:
    scores = single_shot.evaluate(**WORKED, max_rank=4)
    assert scores.cmc.tolist() == pytest.approx([1 / 4, 5 / 6, 1, 1])
    assert math.isnan(scores.mAP)
    assert math.isnan(scores.mINP)
    assert scores.queries == 1


def test_the_curve_is_cut_without_a_change() -> None:
    assert single_shot.evaluate(**WORKED, max_rank=2).cmc.tolist() == pytest.approx([1 / 4, 5 / 6])
    assert single_shot.evaluate(**WORKED).cmc.shape == (50,)
    with pytest.raises(ValueError, match="max_rank is 0"):
        single_shot.evaluate(**WORKED, max_rank=0)


@pytest.mark.parametrize("seed", range(12))
def test_agrees_with_every_draw(seed: int) -> None:
    case = random_case(seed)
    expected = every_draw(case, max_rank=5)
    table = single_shot.per_query(**case, max_rank=5)
    assert table.index.tolist() == list(expected)
    assert table.columns.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(table.to_numpy(), list(expected.values()), atol=1e-12)


def test_agrees_with_many_draws() -> None:
    """As the protocol is carried out: draw, rank, repeat."""
    draw = np.random.default_rng(0)
    case = random_case(3, queries=20, gallery=80)
    case["gallery_ids"] = draw.integers(1, 12, 80)
    case["query_ids"] = draw.integers(1, 12, 20)
    draws = 2_000
    hits = np.zeros((20, 10))
    for query in range(20):
        choices, place = galleries(case, query)
        places = np.stack([place[draw.choice(choice, draws)] for choice in choices])
        ranks = 1 + (places[1:] < places[0]).sum(0)
        hits[query] = [(ranks <= k).mean() for k in range(1, 11)]
    table = single_shot.per_query(**case, max_rank=10)
    assert len(table) == 20
    np.testing.assert_allclose(table.to_numpy(), hits, atol=5 * 0.5 / draws**0.5)
    scores = single_shot.evaluate(**case, max_rank=10)
    np.testing.assert_allclose(scores.cmc, hits.mean(0), atol=5 * 0.5 / (20 * draws) ** 0.5)


def test_without_a_match_is_told() -> None:
    with pytest.raises(ValueError, match="every query would be left without a match"):
        single_shot.evaluate(**{**WORKED, "query_ids": [9]})
    with pytest.raises(ValueError, match="NaN, infinite"):
        single_shot.evaluate(**{**WORKED, "query_features": torch.full((1, 1), torch.nan)})


def test_chance_on_a_split_as_large_as_cuhk03s() -> None:
    """100 identities with 4.8 images from each camera; each rank is as likely."""
    draw = np.random.default_rng(0)
    ids = np.repeat(np.arange(100), 5)[:480]
    features = draw.standard_normal((2, 480, 256))
    scores = single_shot.evaluate(*features, ids, ids, np.full(480, 1), np.full(480, 2))
    np.testing.assert_allclose(scores.cmc, np.arange(1, 51) / 100, atol=0.05)
