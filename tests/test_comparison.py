"""The paired bootstrap against its definition, its theory and hand-worked cases."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from ianet.comparison import paired_bootstrap


def frame(*seeds: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(dict(enumerate(seeds)))


def test_equal_differences_leave_no_doubt() -> None:
    assert paired_bootstrap(frame(np.full(50, 0.25))) == pytest.approx((0.25, 0.25))


def test_one_seed_is_the_normal_interval_for_many_queries() -> None:
    """Mean ± 1.96 standard errors, by the central limit theorem."""
    differences = np.random.default_rng(1).normal(0.1, 1, 4000)
    low, high = paired_bootstrap(frame(differences), draws=4000)
    error = 1.96 * differences.std() / math.sqrt(len(differences))
    assert low == pytest.approx(differences.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(differences.mean() + error, abs=0.1 * error)


def test_slow_definition_with_seeds_and_missing_queries() -> None:
    """Queries drawn one by one, then seeds; seed 1 lacks the last three queries."""
    generator = np.random.default_rng(2)
    values = generator.normal(0, 1, (8, 3))
    values[5:, 1] = np.nan
    slow = []
    for _ in range(4000):
        rows = generator.integers(8, size=8)
        seeds = generator.integers(3, size=3)
        drawn = [values[rows, seed] for seed in seeds]
        means = [0.0 if np.isnan(one).all() else np.nanmean(one) for one in drawn]
        slow.append(np.mean(means))
    expected = np.quantile(slow, [0.025, 0.975])
    found = paired_bootstrap(pd.DataFrame(values), draws=20000)
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_seeds_that_disagree_widen_the_interval() -> None:
    """Two seeds, +1 and -1 for every query: means of -1, 0 and 1."""
    assert paired_bootstrap(frame(np.ones(30), -np.ones(30))) == (-1, 1)


def test_draws_are_reproducible_and_confidence_is_obeyed() -> None:
    differences = frame(np.random.default_rng(3).normal(0, 1, 200))
    assert paired_bootstrap(differences) == paired_bootstrap(differences)
    low, high = paired_bootstrap(differences)
    narrow_low, narrow_high = paired_bootstrap(differences, confidence=0.5)
    assert low < narrow_low < narrow_high < high


def test_a_seed_without_queries_is_told() -> None:
    with pytest.raises(ValueError, match="a seed has no query"):
        paired_bootstrap(frame(np.ones(3), np.full(3, np.nan)))
