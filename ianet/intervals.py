"""The uncertainty of a score that comes from the choice of people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def bootstrap_identities(
    scores: pd.DataFrame,
    identities: Sequence[object],
    *,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Return an interval of the mean of each score, from random identities with replacement.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile interval. Queries of
    the same person are alike, so whole identities are drawn with all their queries.

    Args:
        scores: (queries, names).
        identities: of the queries.
        draws: number of samples.
        confidence: share of the samples within the interval.
        seed: of the random numbers.

    Returns:
        (names, 2): the columns low and high.
    """
    codes, names = pd.factorize(np.asarray(identities, dtype=object))
    sums = scores.astype(float).groupby(codes).sum().to_numpy()
    counts = np.bincount(codes)
    times = draw_identities(len(names), draws, seed)
    means = (times @ sums) / (times @ counts)[:, None]
    bounds = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return pd.DataFrame(bounds.T, index=scores.columns, columns=["low", "high"])


def draw_identities(identities: int, draws: int, seed: int) -> NDArray[np.int64]:
    """Return how often each draw with replacement has each identity, (draws, identities)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(identities, np.full(identities, 1 / identities), size=draws)
