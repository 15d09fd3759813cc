"""The protocols of data sets: the scores of each query, by the name of a protocol."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd

from ianet import retrieval, single_shot
from ianet.options import Scoring, refuse_unknown
from ianet.reranking import KReciprocal

RANKS = 50
"""Length of a CMC curve."""
TOP = (1, 5, 10)
"""Ranks of the curve that are scores."""
MEANS = {"mAP": "average_precision", "mINP": "inverse_negative_penalty"}
"""Score to the column of `ianet.retrieval.per_query` of which the score is the mean."""


def score_queries(
    scoring: Scoring, *, reranking: KReciprocal | None = None, **arguments: Any
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the CMC curve and the further scores of each query.

    Args:
        scoring: "ranking" (`ianet.retrieval`) or "single_shot" (`ianet.single_shot`).
        reranking: to rank by k-reciprocal neighbours, see `ianet.reranking`.
        arguments: features, identities and cameras, see `ianet.retrieval.per_query`.

    Returns:
        A row for each query that has a match, its index the query's position, in both. The first
        has a column for each rank from 1 to `RANKS`: whether, or how likely, a match has that rank
        or a better one. The second has a column for each of `MEANS`, and none for "single_shot".

    Raises:
        ValueError: as `ianet.retrieval.per_query`, or re-ranking of a single-shot protocol.
    """
    refuse_unknown("scoring", scoring, get_args(Scoring))
    if scoring == "single_shot":
        if reranking is not None:
            raise ValueError("re-ranking is not defined for a single-shot protocol: leave it out")
        cmc = single_shot.per_query(**arguments, max_rank=RANKS)
        return cmc, pd.DataFrame(index=cmc.index)
    queries = retrieval.per_query(**arguments, reranking=reranking)
    ranks = np.arange(1, RANKS + 1)
    cmc = pd.DataFrame(queries[["first_rank"]].to_numpy() <= ranks, queries.index, ranks)
    return cmc, pd.DataFrame({name: queries[column] for name, column in MEANS.items()})
