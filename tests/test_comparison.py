"""Intervals of means over persons and seeds: by hand, by theory, and by how often they hold."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ianet.comparison import correct_holm, estimate_mean, expect_average_precision

PERSONS, QUERIES = 60, 4  # queries of each person


def draw_scores(
    generator: np.random.Generator,
    *,
    seeds: int,
    person: float = 1.0,
    seed: float = 0.0,
    both: float = 0.0,
    query: float = 0.5,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Scores with a true mean of 0, whose parts have these standard deviations."""
    persons = np.repeat(np.arange(PERSONS), QUERIES)
    parts = (
        person * generator.normal(size=(PERSONS, 1))[persons],
        seed * generator.normal(size=(1, seeds)),
        both * generator.normal(size=(PERSONS, seeds))[persons],
        query * generator.normal(size=(len(persons), seeds)),
    )
    return pd.DataFrame(sum(parts)), persons


def test_equal_values_leave_no_doubt() -> None:
    estimate = estimate_mean(pd.DataFrame(np.full((50, 2), 0.25)), np.arange(50) // 5)
    assert estimate.mean == pytest.approx(0.25)
    assert estimate.interval() == pytest.approx((0.25, 0.25))
    assert estimate.p_value == 0
    assert estimate_mean(pd.DataFrame(np.zeros((4, 1))), [1, 1, 2, 2]).p_value == 1


def test_one_seed_is_the_error_of_the_means_of_persons() -> None:
    """Persons of equally many queries: the standard error of the mean of PERSONS numbers."""
    scores, persons = draw_scores(np.random.default_rng(0), seeds=1)
    estimate = estimate_mean(scores, persons, draws=20000)
    means = scores[0].groupby(persons).mean()
    assert estimate.mean == pytest.approx(scores[0].mean())
    assert estimate.error == pytest.approx(means.std(ddof=0) / math.sqrt(PERSONS), rel=0.02)
    assert estimate.freedom == PERSONS - 1
    half = stats.t.ppf(0.975, PERSONS - 1) * estimate.error
    assert estimate.interval() == pytest.approx((estimate.mean - half, estimate.mean + half))
    # As if queries were independent, the error would be half of that.
    assert estimate.error > 1.6 * scores[0].std() / math.sqrt(len(scores))


def test_order_and_names_of_persons_do_not_matter() -> None:
    scores, persons = draw_scores(np.random.default_rng(1), seeds=3, seed=1)
    shuffled = np.random.default_rng(2).permutation(len(scores))
    first = estimate_mean(scores, persons)
    assert estimate_mean(scores.iloc[shuffled], persons[shuffled]) == pytest.approx(first)
    assert estimate_mean(scores, [f"p{person:02}" for person in persons]) == pytest.approx(first)


def test_seeds_that_disagree_are_the_error_of_their_means() -> None:
    """Means of -1, 0 and 1 without persons who differ: a t interval of three numbers."""
    values = pd.DataFrame(np.tile([-1.0, 0, 1], (40, 1)))
    estimate = estimate_mean(values, np.arange(40))
    assert estimate.error == pytest.approx(1 / math.sqrt(3))
    assert estimate.freedom == pytest.approx(2)
    assert estimate.interval()[1] == pytest.approx(4.3027 / math.sqrt(3), abs=1e-3)


def test_a_slow_bootstrap_gives_the_same_error() -> None:
    """Persons drawn one by one; seed 1 lacks three persons; one person has more queries."""
    generator = np.random.default_rng(3)
    persons = np.repeat(np.arange(12), [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 9])
    values = generator.normal(size=(len(persons), 2)) + generator.normal(size=(12, 1))[persons]
    values[persons >= 9, 1] = np.nan
    means = []
    for _ in range(6000):
        rows = np.concatenate(
            [np.flatnonzero(persons == person) for person in generator.integers(12, size=12)]
        )
        means.append(np.nanmean(values[rows], axis=0))
    (first, shared), (_, second) = np.cov(np.array(means).T)
    between = max(np.nanmean(values, axis=0).var(ddof=1), (first + second) / 2 - shared)
    estimate = estimate_mean(pd.DataFrame(values), persons, draws=6000)
    assert estimate.mean == pytest.approx(np.nanmean(values, axis=0).mean())
    assert estimate.error == pytest.approx(math.sqrt(shared + between / 2), rel=0.04)


@pytest.mark.parametrize(
    "parts",
    [
        {"seeds": 1},
        {"seeds": 3, "seed": 0.15},
        {"seeds": 3, "person": 0.2, "seed": 0.3},
        {"seeds": 3, "both": 1.0},
        {"seeds": 8, "person": 0.3, "seed": 0.1, "both": 0.5},
    ],
)
def test_intervals_hold_as_often_as_they_say(parts: dict[str, float]) -> None:
    """The true mean, 0, lies in 95 % of the intervals; never in much fewer, nor in nearly all."""
    generator = np.random.default_rng(4)
    hits = 0
    for _ in range(300):
        low, high = estimate_mean(*draw_scores(generator, **parts), draws=300).interval()  # type: ignore[arg-type]
        hits += low <= 0 <= high
    assert 0.92 <= hits / 300 <= 0.99


def test_a_detectable_mean_is_found_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    scores, persons = draw_scores(generator, seeds=1)
    shift = estimate_mean(scores, persons).detectable(4)
    hits = 0
    for _ in range(300):
        scores, persons = draw_scores(generator, seeds=1)
        hits += estimate_mean(scores + shift, persons, draws=300).p_value < 0.05 / 4
    assert 0.7 <= hits / 300 <= 0.9


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.6 times 4, 3, 2, 1; 0.06 is not less than the one before.
    assert correct_holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert correct_holm([0.4, 0.5]) == pytest.approx([0.8, 0.8])
    assert correct_holm([0.7, 0.8]) == pytest.approx([1, 1])
    assert correct_holm([]).shape == (0,)


@pytest.mark.parametrize(("matches", "candidates"), [(1, 1), (1, 4), (2, 5), (3, 3), (3, 6)])
def test_the_expectation_of_a_random_ranking_is_the_mean_over_all(
    matches: int, candidates: int
) -> None:
    precisions = [
        fmean(rank / (place + 1) for rank, place in enumerate(places, 1))
        for places in combinations(range(candidates), matches)
    ]
    assert expect_average_precision([matches], [candidates]) == pytest.approx([fmean(precisions)])


@pytest.mark.parametrize(
    ("values", "persons", "message"),
    [
        ([[1.0, math.nan], [2.0, math.nan]], [1, 2], "a seed has no query"),
        ([[1.0, 2.0], [2.0, 3.0]], [4, 4], "all queries are of one person"),
    ],
)
def test_what_has_no_interval_is_told(
    values: list[list[float]], persons: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        estimate_mean(pd.DataFrame(values), persons)
