"""Forest plots: bars stand at their numbers, labels above their bars, all within a phone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ianet import drawing

CSS_PIXELS = 96  # an inch
PHONE = 390 - 2 * 16  # pixels between the margins of the page
LONG = "Market-1501, trained to the end: plain recipe: squeeze-and-excitation, fast"
GAINS = [
    drawing.Gain("stage 2", 0.5, -0.25, 1.25, False),
    drawing.Gain(LONG, -1.0, -1.5, -0.5, True),
    drawing.Gain("stage 3", 0.75, 0.5, 1.0, True),
]


def draw(panels: dict[tuple[str, str], list[drawing.Gain]]) -> Figure:
    """The plot, laid out."""
    figure = drawing.draw_forest(panels)
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("metrics", [["mAP"], ["top-1", "mAP"]])
def test_labels_stand_above_their_bars_and_fit_a_phone(metrics: list[str]) -> None:
    figure = draw({(dataset, metric): GAINS for dataset in ("a", "b") for metric in metrics})
    assert figure.get_figwidth() * CSS_PIXELS <= PHONE
    for row in range(2):
        axes = figure.axes[(row + 1) * len(metrics) - 1]
        texts = [text.get_text().replace("\n", " ") for text in axes.texts]
        assert texts == ["stage 2", LONG, "stage 3"]
        assert [text.get_text().count("\n") for text in axes.texts] == [0, 1, 0]
        assert {text.get_fontsize() * CSS_PIXELS / 72 for text in axes.texts} == {12}
        labels = [text.get_window_extent() for text in axes.texts]
        bars = [line.get_window_extent() for line in axes.lines[:-1:2]]  # each before its point
        assert all(label.x0 >= 0 and label.x1 <= figure.bbox.x1 for label in labels)
        assert all(label.y0 > bar.y1 for label, bar in zip(labels, bars, strict=True))
        assert all(bar.y0 > label.y1 for bar, label in zip(bars, labels[1:], strict=False))
        gaps = [(label.y0 - bar.y0, bar.y0 - below.y1) for label, bar, below in
                zip(labels, bars, labels[1:], strict=False)]  # fmt: skip
        assert all(above < below for above, below in gaps)  # nearer to its own label
        assert all(upper.y0 > lower.y1 for upper, lower in pairwise(labels))


def test_bars_stand_at_their_numbers_and_findings_are_filled() -> None:
    [axes] = draw({("synthetic", "mAP"): GAINS}).axes
    assert (axes.get_title(), axes.get_xlabel()) == ("synthetic", "gain in mAP, points")
    *lines, zero = axes.lines
    assert list(zero.get_xdata()) == [0, 0]
    for gain, bar, point in zip(GAINS, lines[::2], lines[1::2], strict=True):
        assert list(bar.get_xdata()) == [gain.low, gain.high]
        assert list(point.get_xdata()) == [gain.mean]
        assert (point.get_markerfacecolor() == "white") == (not gain.finding)
    assert [point.get_markeredgecolor() for point in lines[1::2]] == ["C7", "C3", "C2"]


def test_a_gain_without_another_metric_keeps_its_place() -> None:
    gains = {("synthetic", "top-1"): GAINS, ("synthetic", "mAP"): GAINS[1:]}
    first, second = draw(gains).axes
    assert first.get_ylim() == second.get_ylim()
    places = [[line.get_ydata()[0] for line in axes.lines[:-1:2]] for axes in (first, second)]
    assert places[1] == places[0][1:]
    assert len(second.texts) == 3


def test_without_gains_nothing_is_drawn() -> None:
    assert drawing.draw_forest({}).axes == []
