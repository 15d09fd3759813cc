"""Which queries are shown, and the neighbours of each, by hand-worked cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pipeline.report.ranked_lists import ScoredImages, choose_queries, rank_neighbours


def test_the_largest_changes_are_shown_first() -> None:
    before = pd.Series({4: 0.5, 7: 0.5, 9: 0.5, 12: 0.5, 15: 0.5})
    after = pd.Series({4: 0.75, 7: 0.25, 9: 1.0, 12: 0.5, 15: 0.75})
    assert choose_queries(before, after, 2) == ([9, 4], [7])
    assert choose_queries(before, after, 9) == ([9, 4, 15], [7])
    assert choose_queries(after, after, 2) == ([], [])


@pytest.fixture
def images() -> ScoredImages:
    """A query of person 1 by camera 1, and five gallery images."""
    queries = pd.DataFrame({"path": ["q"], "person": [1], "camera": [1]}, index=[3])
    gallery = pd.DataFrame(
        {"path": list("abcde"), "person": [1, 2, 1, 0, 1], "camera": [1, 1, 2, 2, 3]}
    )
    same = np.array([[True, False, True, False, True]])
    candidates = np.array([[False, True, True, True, True]])
    return ScoredImages(queries, gallery, {}, candidates, same)


def test_neighbours_are_ranked_as_the_protocol_ranks(images: ScoredImages) -> None:
    """a is nearest, but of the query's person and camera; b and e are equally near."""
    distances = np.array([[0.0, 0.5, 0.25, 0.75, 0.5]], np.float32)
    rows = rank_neighbours(distances, 0, images, 3)
    assert rows.to_dict("list") == {
        "rank": [1, 2, 3],
        "path": ["c", "b", "e"],
        "distance": [0.25, 0.5, 0.5],
        "person": ["1", "2", "1"],
        "right": [True, False, True],
    }
    assert len(rank_neighbours(distances, 0, images, 99)) == 4
