"""Which queries are shown, and the neighbours of each, by hand-worked cases."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ianet import drawing
from ianet.drawing import draw_pair_distances
from pipeline.plan.runs import Run
from pipeline.report import ranked_lists
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


def test_histograms_have_shares_of_the_pairs_and_medians() -> None:
    near, far = np.array([0.1, 0.1, 0.3], np.float32), np.array([0.8, 0.9, 1.0, 1.6], np.float32)
    figure = draw_pair_distances({"base": (near, far), "stage23": (far, near)})
    panels = figure.get_axes()
    assert [axes.get_title() for axes in panels] == ["base", "stage23"]
    for axes, pairs in zip(panels, ((near, far), (far, near)), strict=True):
        for patch, line, values in zip(axes.patches, axes.lines, pairs, strict=True):
            shares, edges, _ = patch.get_data()
            assert shares.sum() == pytest.approx(1)
            within = (values >= edges[0]) & (values <= edges[8])
            assert shares[:8].sum() == pytest.approx(within.mean())
            assert line.get_xdata()[0] == pytest.approx(np.median(values))


def test_histograms_stand_three_in_a_row_with_one_scale() -> None:
    pair = np.array([0.1, 0.3], np.float32), np.array([0.8, 0.9], np.float32)
    panels = draw_pair_distances(dict.fromkeys("abcde", pair)).get_axes()
    places = [axes.get_subplotspec() for axes in panels]
    assert [(place.rowspan.start, place.colspan.start) for place in places if place] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 1),
    ]
    assert [axes.get_ylabel() != "" for axes in panels] == [True, False, False, True, False]
    assert len({axes.get_ylim() for axes in panels}) == 1


@pytest.mark.parametrize(
    ("top", "labels"),
    [(0.85, ["0%", "20%", "40%"]), (0.045, ["0%", "1%", "2%"]), (0.015, ["0%", "0.2%", "0.4%"])],
)
def test_ticks_of_shares_have_the_decimals_that_they_need(top: float, labels: list[str]) -> None:
    pair = np.ones(1, np.float32), np.ones(1, np.float32)
    [axes] = draw_pair_distances({"base": pair}).axes
    axes.set_ylim(0, top)
    axes.figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_yticklabels()][:3] == labels


Panels = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
BASE, OTHER = (Run("synthetic", name, "quick", 0) for name in ("base", "other"))
DISTANCES = {
    BASE: np.array([[0.0, 0.5, 0.25, 0.75, 0.5], [0.5, 0.0, 0.25, 1.0, 0.75]], np.float32),
    OTHER: np.array([[0.1, 0.6, 0.2, 0.8, 0.4], [0.7, 0.3, 0.9, 1.1, 0.2]], np.float32),
}
PRECISIONS = {
    BASE: pd.DataFrame({"mAP": {3: 0.5, 8: 0.75}}),
    OTHER: pd.DataFrame({"mAP": {3: 0.75, 8: 0.25}}),
}


def write_fragment(images: ScoredImages, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Panels]:
    """The lists of two networks and the panels that are drawn, with a second query.

    The second query shows person 2 by camera 3. `other` mends the first and spoils the second.
    """
    second = pd.DataFrame({"path": ["r"], "person": [2], "camera": [3]}, index=[8])
    scored_images = ScoredImages(
        pd.concat([images.queries, second]),
        images.gallery,
        dict.fromkeys([*"qrabcde"], np.zeros((4, 2, 3), np.uint8)),
        np.vstack([images.candidates, np.full(5, fill_value=True)]),
        np.vstack([images.same, [False, True, False, False, False]]),
    )
    panels: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}

    def draw(distances: Panels) -> Figure:
        panels.update(distances)
        return draw_pair_distances(distances)

    monkeypatch.setattr(drawing, "draw_pair_distances", draw)
    for name, value in {
        "read_images": lambda *_: scored_images,
        "measure_distances": lambda run, _: DISTANCES[run],
        "read_queries": lambda evaluation: PRECISIONS[evaluation.run],
    }.items():
        monkeypatch.setattr(ranked_lists, name, value)
    lists = SimpleNamespace(title="Lists & more", queries=1, neighbours=2)
    return ranked_lists.build_fragment(lists, [OTHER, BASE], SimpleNamespace()), panels


def test_histograms_scroll_in_a_box_with_a_name(
    images: ScoredImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    html, _ = write_fragment(images, monkeypatch)
    name = 'aria-label="Distances of pairs, Lists &amp; more"'
    assert f'<figure {name}><div role="region" {name}><svg ' in html
    assert "</svg>\n</div></figure>" in html


def test_a_query_stands_below_what_the_network_does_to_it(
    images: ScoredImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    html, _ = write_fragment(images, monkeypatch)
    pattern = r"<h[34]>(.*?)</h[34]>|<p>(\w+: average precision .*?)</p>"
    assert [heading or score for heading, score in re.findall(pattern, html)] == [
        "other raises the average precision",
        "Person 1, camera 1",
        "base: average precision 50.0 %",
        "other: average precision 75.0 %",
        "other lowers the average precision",
        "Person 2, camera 3",
        "base: average precision 75.0 %",
        "other: average precision 25.0 %",
    ]


def test_histograms_leave_out_the_pairs_that_do_not_count(
    images: ScoredImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first query and a are of one person and camera."""
    _, panels = write_fragment(images, monkeypatch)
    assert list(panels) == ["base", "other"]
    near, far = panels["base"]
    assert near.tolist() == [0.25, 0.5, 0.0]
    assert far.tolist() == [0.5, 0.75, 0.5, 0.25, 1.0, 0.75]
    near, far = panels["other"]
    assert near.tolist() == pytest.approx([0.2, 0.4, 0.3])
    assert far.tolist() == pytest.approx([0.6, 0.8, 0.7, 0.9, 1.1, 0.2])
