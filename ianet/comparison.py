"""The uncertainty of a mean over queries: of a score, or of the difference between two networks.

Two things are drawn at random: the persons who are queried, and the seed of a training. The queries
of a person resemble each other, so whole persons count. A mean that is to hold for other persons
and other seeds has the variance of a two-way layout (Cameron, Gelbach and Miller, Robust Inference
with Multiway Clustering, 2011):

    var = var_persons / P + var_seeds / S + var_both / (P S)

with P persons and S seeds. A bootstrap over persons (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993) draws the same persons for all seeds. The covariance of two seeds' means over the
draws then estimates var_persons / P, and the variance of a seed's mean var_persons / P +
var_both / P. The variance between the seeds' means estimates var_seeds + var_both / P.

Few seeds say little of their variance. Student's t distribution with Satterthwaite's degrees of
freedom (An Approximate Distribution of Estimates of Variance Components, 1946) allows for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma, stdtr, stdtrit

from ianet.options import check_types

POWER = 0.8
"""Chance to find the difference that is called detectable: the usual value (Cohen, 1988)."""


class Estimate(NamedTuple):
    """A mean and its uncertainty.

    Attributes:
        mean: over the seeds, of the means over the queries.
        error: standard error. With one seed, for other persons alone.
        freedom: degrees of freedom of the error.
    """

    mean: float
    error: float
    freedom: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the lower and upper bound of the mean."""
        half = self.error * float(stdtrit(self.freedom, (1 + confidence) / 2))
        return self.mean - half, self.mean + half

    @property
    def p_value(self) -> float:
        """The chance of a mean at least as far from 0, were the true mean 0."""
        if self.error == 0:
            return float(self.mean == 0)
        return 2 * float(stdtr(self.freedom, -abs(self.mean) / self.error))

    def detectable(self, comparisons: int = 1) -> float:
        """Return the smallest true mean that is found with a chance of `POWER`.

        Args:
            comparisons: number of those that Holm's correction is for. The smallest p-value of all
                is then compared with 0.05 / comparisons.
        """
        bound, excess = stdtrit(self.freedom, [1 - 0.025 / comparisons, POWER])
        return self.error * float(bound + excess)


def estimate_mean(
    values: pd.DataFrame, persons: ArrayLike, *, draws: int = 2000, seed: int = 0
) -> Estimate:
    """Return the mean of values of queries over persons and seeds, with its uncertainty.

    Args:
        values: (queries, seeds), such as the score of a network less the score of another; NaN
            where a seed lacks the query.
        persons: (queries,), who is queried.
        draws: number of samples of persons.
        seed: of the random numbers.

    Raises:
        ValueError: a seed without any query, or fewer than two persons.
    """
    table = values.to_numpy(dtype=float)
    valid = ~np.isnan(table)
    if not valid.any(axis=0).all():
        raise ValueError("a seed has no query: the values need a row for each query")
    _, person = np.unique(np.asarray(persons), return_inverse=True)
    number, seeds = int(person.max()) + 1, table.shape[1]
    if number < 2:
        raise ValueError("all queries are of one person: an interval needs at least 2 persons")
    sums, queries = _sum_by(person, np.where(valid, table, 0)), _sum_by(person, valid.astype(float))
    seed_means = sums.sum(0) / queries.sum(0)

    times = draw_persons(number, draws, seed)
    means = (times @ sums) / np.maximum(times @ queries, 1)  # (draws, seeds)
    covariance = np.atleast_2d(np.cov(means, rowvar=False))
    seed_variance = float(covariance.trace()) / seeds
    if seeds == 1:
        return Estimate(float(seed_means[0]), seed_variance**0.5, number - 1)
    shared = max(0.0, float(covariance.sum() - covariance.trace()) / (seeds * (seeds - 1)))
    # Three seeds may agree by luck. Persons who differ between seeds are in each seed's mean.
    between = max(float(seed_means.var(ddof=1)), seed_variance - shared) / seeds
    variance = shared + between
    parts = shared**2 / (number - 1) + between**2 / (seeds - 1)
    freedom = variance**2 / parts if variance else number - 1
    return Estimate(float(seed_means.mean()), variance**0.5, freedom)


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval, of 95 % unless said otherwise.

    Raises:
        ValueError: a wrong value.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        check_types(self)
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} is not between {self.low} and {self.high}")


def bound_score(values: pd.Series, persons: Sequence[object]) -> Interval:
    """Return the mean of the score of each query, with its 95 % interval over persons.

    Args:
        values: of the queries, within 0 and 1.
        persons: who is queried; of a single person the interval is from 0 to 1.
    """
    mean = min(max(float(values.mean()), 0.0), 1.0)
    if len(set(persons)) < 2:
        return Interval(mean, 0.0, 1.0)
    low, high = estimate_mean(values.to_frame(), pd.Series(list(persons)).astype(str)).interval()
    return Interval(mean, min(max(low, 0.0), mean), max(min(high, 1.0), mean))


def draw_persons(number: int, draws: int, seed: int) -> NDArray[np.int64]:
    """Return how often each draw with replacement has each person, (draws, number).

    With counts instead of persons, the means of all draws are matrix products.
    """
    return np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), draws)


def _sum_by(person: NDArray[np.int64], table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sums of the rows of each person, (persons, seeds)."""
    sums = np.zeros((person.max() + 1, table.shape[1]))
    np.add.at(sums, person, table)
    return sums


def correct_holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return p-values that hold for all comparisons together, (N,).

    Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979): the k-th smallest of N
    is multiplied by N - k + 1, and none becomes less than a smaller one.

    Args:
        p_values: (N,), of the comparisons by themselves.
    """
    values = np.asarray(p_values, dtype=float)
    order = values.argsort(kind="stable")
    factors = np.arange(len(values), 0, -1)
    corrections = np.empty_like(values)
    corrections[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1)
    return corrections


def expect_average_precision(matches: ArrayLike, candidates: ArrayLike) -> NDArray[np.float64]:
    """Return the expected average precision ("step") of a random ranking.

    With R matches among N candidates, rank k holds a match with chance R / N. The k - 1 images
    before a match hold (k - 1) (R - 1) / (N - 1) further matches on average. The sum over k of the
    precision, divided by R, is

        H_N / N + (R - 1) / (N - 1) * (1 - H_N / N),    H_N = 1 + 1/2 + ... + 1/N

    Args:
        matches, candidates: (Q,), see `ianet.retrieval.count_candidates`. A query has a match.

    Returns:
        (Q,) fractions.
    """
    hits, totals = np.asarray(matches, float), np.asarray(candidates, float)
    first = (digamma(totals + 1) + np.euler_gamma) / totals
    return first + (hits - 1) / np.maximum(totals - 1, 1) * (1 - first)
