"""How sure a difference between two networks is."""

from __future__ import annotations

import numpy as np
import pandas as pd


def paired_bootstrap(
    differences: pd.DataFrame, *, draws: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """An interval of the mean difference, from queries and seeds drawn with replacement.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile interval. Both
    networks are scored on the same queries, so it is the queries' differences that are drawn,
    each query for all seeds together, and then the seeds. With one seed the interval says
    nothing of what another seed would have given.

    Args:
        differences: (queries, seeds), the score of one network less that of the other; NaN
            where a seed does not have that query.
        draws: how often the queries and the seeds are drawn.
        confidence: share of the draws within the interval.
        seed: of the draws.

    Returns:
        Lower and upper bound.

    Raises:
        ValueError: a seed without any query.
    """
    values = differences.to_numpy(dtype=float)
    known = ~np.isnan(values)
    if not known.any(axis=0).all():
        raise ValueError("a seed has no query: the differences need one row a query")
    queries, seeds = values.shape
    generator = np.random.default_rng(seed)
    # How often each query is drawn, instead of which: means are then one matrix product.
    picks = generator.integers(queries, size=(draws, queries))
    times = np.stack([np.bincount(pick, minlength=queries) for pick in picks]).astype(float)
    by_seed = (times @ np.where(known, values, 0)) / np.maximum(
        times @ known.astype(float), 1
    )  # (draws, seeds)
    drawn = generator.integers(seeds, size=(draws, seeds))
    means = np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
