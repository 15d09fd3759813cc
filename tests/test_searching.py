"""Exact search, beside a sort of all distances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ianet import searching
from ianet.feature_table import FeatureTable, Identity
from ianet.searching import JointGallery, find_neighbours, search

MODEL = Identity("tiny", "ab")


def features(count: int, seed: int, size: int = 4) -> NDArray[np.float32]:
    """Whole numbers, of which many are equal: ties are frequent."""
    generator = np.random.default_rng(seed)
    return generator.integers(-1, 2, (count, size)).astype(np.float32) * 2


def slow(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """By a stable sort of all distances."""

    def unit(values: NDArray[np.float32]) -> NDArray[np.float64]:
        length = np.linalg.norm(values.astype(float), axis=1, keepdims=True)
        return values / np.where(length == 0, 1, length)

    # Rounded, so that what is equal by hand is equal here.
    distances = np.round(1 - unit(queries) @ unit(gallery).T, 6)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
@pytest.mark.parametrize("k", [1, 10, 200])
@pytest.mark.parametrize("pairs", [1, 100, 2**21])
def test_neighbours_are_those_of_a_sort(
    block: int, k: int, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "PAIRS", pairs)
    queries, gallery = features(9, 0), features(103, 1)
    blocks = (gallery[first : first + block] for first in range(0, len(gallery), block))
    nearest = find_neighbours(queries, blocks, k)
    distances, _ = slow(queries, gallery, k)
    assert nearest.indices.shape == (9, min(k, 103))
    assert np.abs(nearest.distances - distances).max() < 1e-6
    for row, (values, places) in enumerate(zip(nearest.distances, nearest.indices, strict=True)):
        assert len(set(places)) == len(places)
        exact, _ = slow(queries[row : row + 1], gallery[places], len(places))
        assert np.abs(np.sort(values) - exact).max() < 1e-6


def test_equal_distances_are_ranked_by_place() -> None:
    query = np.array([[1, 0], [0, 1]], np.float32)
    gallery = np.array([[0, 2], [1, 0], [3, 0], [0, 1], [1, 0], [-1, 0]], np.float32)
    for block in (1, 2, 6):
        blocks = (gallery[first : first + block] for first in range(0, 6, block))
        nearest = find_neighbours(query, blocks, 6)
        assert nearest.indices.tolist() == [[1, 2, 4, 0, 3, 5], [0, 3, 1, 2, 4, 5]]
        assert nearest.distances.tolist() == [[0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize("block", [3, 64, 500])
def test_many_equal_distances_are_ranked_as_by_a_stable_sort(block: int) -> None:
    """Axes have exact distances: 0, 1 and 2."""
    axes = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    generator = np.random.default_rng(4)
    queries, gallery = (axes[generator.integers(0, 6, count)] for count in (20, 500))
    expected = np.argsort(1 - queries @ gallery.T, axis=1, kind="stable")
    for k in (1, 7, 90, 300):
        blocks = (gallery[first : first + block] for first in range(0, 500, block))
        assert np.array_equal(find_neighbours(queries, blocks, k).indices, expected[:, :k])


def test_excluded_pairs_are_left_out() -> None:
    query = np.array([[1, 0], [0, 1]], np.float32)
    gallery = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    for block in (1, 3):
        blocks = (gallery[first : first + block] for first in range(0, 3, block))
        nearest = find_neighbours(query, blocks, 3, [(0, 0), (1, 2), (1, 0)])
        assert nearest.indices.tolist() == [[2, 1, -1], [1, -1, -1]]
        assert nearest.distances[1].tolist() == [0, np.inf, np.inf]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="k is 0: it must be 1 at least"):
        find_neighbours(features(1, 0), [features(2, 1)], 0)
    with pytest.raises(ValueError, match="a gallery feature has 5 numbers and a query feature 4"):
        find_neighbours(features(1, 0), [features(2, 1, size=5)], 1)


@pytest.mark.parametrize("scale", [1e30, np.inf, np.nan])
def test_features_that_cannot_be_compared_are_refused(scale: float) -> None:
    right = np.array([[1, 2], [2, -1]], np.float32)
    wrong = right * np.array([[1], [scale]], np.float32)
    large = find_neighbours(right * np.float32(1e18), [right * np.float32(1e18)], 1)
    assert large.indices.tolist() == [[0], [1]]
    for queries, gallery, name in ((wrong, right, "query"), (right, wrong, "gallery")):
        message = f"^{name} features hold values that are NaN, infinite or too large$"
        with pytest.raises(ValueError, match=message):
            find_neighbours(queries, [right, gallery], 1)


def table(values: list[list[float]], paths: list[str], persons: list[str]) -> FeatureTable:
    cameras = ["c"] * len(paths)
    return FeatureTable(np.array(values, np.float32), paths, persons, cameras, MODEL)


def test_a_joint_gallery_is_its_parts_in_order() -> None:
    queries = table([[1, 0]], ["q"], ["anna"])
    values, paths, persons = [[0, 1], [1, 1], [1, 0.5]], ["g1", "g2", "g3"], ["b", "", "anna"]
    whole = table(values, paths, persons)
    parts = [table(values[:2], paths[:2], persons[:2]), table(values[2:], paths[2:], persons[2:])]
    ranks = search(queries, JointGallery(parts), 3)
    pd.testing.assert_frame_equal(ranks, search(queries, whole, 3))
    assert ranks.path.tolist() == ["g3", "g2", "g1"]
    with pytest.raises(ValueError, match="there is no gallery: give at least one"):
        JointGallery([])
    message = "^gallery 1 has features of tiny sha256:ab, and gallery 2 of other sha256:cd: feat"
    with pytest.raises(ValueError, match=message):
        JointGallery([whole, replace(whole, model=Identity("other", "cd"))])


def test_ranks_name_pictures_and_what_is_right() -> None:
    queries = table([[1, 0], [0, 1]], ["q", "g2"], ["anna", ""])
    gallery = table(
        [[0, 1], [1, 1], [1, 0], [0, 2]], ["g1", "g2", "g3", "g2"], ["", "b", "anna", "b"]
    )
    ranks = search(queries, gallery, 2)
    expected = pd.DataFrame(
        [
            ("q", 1, "g3", 0.0, "anna", "anna", "c", True),
            ("q", 2, "g2", 1 - 2**-0.5, "anna", "b", "c", False),
            ("g2", 1, "g1", 0.0, "", "", "c", None),
            ("g2", 2, "g3", 1.0, "", "anna", "c", None),
        ],
        columns=[
            *("query", "rank", "path", "distance"),
            *("query_person", "person", "camera", "right"),
        ],
    ).astype({"right": "boolean"})
    pd.testing.assert_frame_equal(
        ranks, expected, check_dtype=False, rtol=1e-6, check_column_type=False
    )


def test_a_gallery_of_the_query_alone_gives_no_neighbour() -> None:
    queries = table([[1, 0]], ["q"], ["anna"])
    assert len(search(queries, queries, 3)) == 0


def test_a_query_is_itself_however_its_path_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    paths = [f"{tmp_path}/photos/1.jpg", "./photos/1.jpg", "link/../photos/1.jpg", "link/1.jpg"]
    gallery = table([[1, 0], [1, 0]], ["photos/1.jpg", "1.jpg"], ["anna", "anna"])
    queries = table([[1, 0]] * 4, paths, ["anna"] * 4)
    ranks = search(queries, gallery, 2)
    assert ranks["query"].tolist() == paths
    assert ranks["path"].tolist() == ["1.jpg"] * 4
