"""The uncertainty of the difference between two networks."""

from __future__ import annotations

import numpy as np
import pandas as pd


def paired_bootstrap(
    differences: pd.DataFrame, *, draws: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Return an interval of the mean difference, from random queries and seeds with replacement.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile interval. Both
    networks are scored on the same queries, so differences of queries are drawn, each query for
    all seeds together. Then seeds are drawn. With one seed the interval ignores the variance
    between seeds.

    Args:
        differences: (queries, seeds), the first network's score less the second network's; NaN
            where a seed lacks the query.
        draws: number of samples of queries and seeds.
        confidence: share of the samples within the interval.
        seed: of the random numbers.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: a seed without any query.
    """
    values = differences.to_numpy(dtype=float)
    valid = ~np.isnan(values)
    if not valid.any(axis=0).all():
        raise ValueError("a seed has no query: the differences need one row a query")
    queries, seeds = values.shape
    generator = np.random.default_rng(seed)
    # Counts of each query, instead of the queries: means are then one matrix product.
    picks = generator.integers(queries, size=(draws, queries))
    times = np.stack([np.bincount(pick, minlength=queries) for pick in picks]).astype(float)
    by_seed = (times @ np.where(valid, values, 0)) / np.maximum(
        times @ valid.astype(float), 1
    )  # (draws, seeds)
    seed_picks = generator.integers(seeds, size=(draws, seeds))
    means = np.take_along_axis(by_seed, seed_picks, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
