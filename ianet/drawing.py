"""Pictures of results."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ianet.files import write_whole

PICTURES = (".png", ".svg")
"""Suffixes of the files that `save` writes."""
HISTOGRAM = 80
"""Bars of a histogram of distances."""
PANELS = 3
"""Panels side by side: histograms of distances, or curves of networks."""
SMALL, NORMAL = 6.0, 8.0
"""Sizes of letters, in points."""

LINES = ("solid", "dashed", "dotted", "dashdot")
"""Styles of curves, in turn."""

# Of a forest plot and of curves, in inches; letters are in points.
_PHONE = 3.4  # width between the margins of a page on a phone
_LABEL = 9.0  # 12 pixels
_LABEL_LETTER = 0.07  # width of a letter of a label
_LABEL_LINE = 0.165  # height of a line of a label


def svg(figure: Figure) -> str:
    """Return the figure as SVG; equal figures give equal text."""
    stream = io.StringIO()
    # Without a salt, names of elements are random; without None, the date is today's. The dpi
    # are those of maps. Text stays text, which can be searched, copied and read aloud.
    with matplotlib.rc_context({"svg.hashsalt": "ianet", "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", dpi=144, metadata={"Date": None})
    return stream.getvalue()


def check_suffix(path: Path) -> None:
    """Raise ValueError unless `save` can write a file of this name."""
    if path.suffix.lower() not in PICTURES:
        raise ValueError(f"{path} is to be a picture: name it {' or '.join(PICTURES)}")


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG or SVG, by the suffix; the file appears whole or not at all.

    Raises:
        ValueError: another suffix.
    """
    check_suffix(path)
    if path.suffix.lower() == ".svg":
        write_whole(path, svg(figure))
        return
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=144, metadata={"Software": None})
    write_whole(path, stream.getvalue())


def _format_share(share: float, _: float) -> str:
    """A share in percent, with the decimals that it needs."""
    return f"{100 * share:g}%"


def draw_cmc_curve(cmc: Sequence[float], title: str) -> Figure:
    """Draw the cumulative matching characteristic; `cmc` holds fractions, rank-1 first."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(cmc) + 1), cmc)
    axes.set(title=title, xlabel="rank", ylabel="queries matched", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(_format_share)
    axes.grid(alpha=0.3)
    return figure


def draw_verification(
    distance: Sequence[float],
    same: Sequence[float],
    other: Sequence[float],
    thresholds: Mapping[float, tuple[float, float]],
    title: str,
) -> Figure:
    """Draw the ROC, left, and the histograms of the distances of pairs, right.

    Args:
        distance: ascending from 0 to 2.
        same, other: shares of the pairs of the same person and of other persons that are nearer.
        thresholds: limit of FAR to the distance of the threshold and to TAR.
        title: printed above.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    roc, histogram = figure.subplots(1, 2)
    far = np.array(other)
    roc.step(far[far > 0], np.array(same)[far > 0], where="post")
    roc.set_xscale("log")
    roc.set(xlabel="false-accept rate", ylabel="true-accept rate", ylim=(0, 1.02))
    edges = np.linspace(0, np.interp(1 - 1e-4, other, distance), HISTOGRAM + 1)
    for label, shares in (("same person", same), ("other persons", other)):
        histogram.stairs(
            np.diff(np.interp(edges, distance, shares)), edges, label=label, fill=True, alpha=0.5
        )
    histogram.set(xlabel="distance", ylabel="share of the pairs")
    histogram.yaxis.set_major_formatter(_format_share)
    for limit, (threshold, tar) in thresholds.items():
        roc.plot(limit, tar, "o", color="black", markersize=4)
        histogram.axvline(threshold, color="black", linewidth=1)
        place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "right", "va": "top"}
        histogram.annotate(f"FAR {limit:g}", (threshold, 0.98), **place, fontsize=SMALL)
    histogram.legend(fontsize=NORMAL)
    roc.grid(alpha=0.3)
    figure.suptitle(title, fontsize=11)
    return figure


def draw_pair_distances(
    panels: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> Figure:
    """Draw histograms of the distances of pairs, a panel for each network.

    Args:
        panels: title to the distances of pairs of the same person and of pairs of other persons.
    """
    columns = min(len(panels), PANELS)
    rows = ceil(len(panels) / columns)
    figure = Figure(figsize=(4.5 * columns, 3 * rows), layout="constrained")
    edges = np.linspace(
        0, max(float(values.max()) for pair in panels.values() for values in pair), HISTOGRAM + 1
    )
    places = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axes in places[len(panels) :]:
        axes.remove()
    for axes, (title, pair) in zip(places, panels.items(), strict=False):
        for label, values, style in (
            ("same person", pair[0], "solid"),
            ("other persons", pair[1], "dashed"),
        ):
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, label=label, fill=True, alpha=0.4)
            axes.axvline(float(np.median(values)), color="black", linewidth=1, linestyle=style)
        axes.set(title=title, xlabel="distance")
        axes.yaxis.set_major_formatter(_format_share)
        axes.legend(fontsize=NORMAL)
    for axes in places[::columns]:
        axes.set_ylabel("share of the pairs")
    return figure


class Band(NamedTuple):
    """Scores in percent over numbers, with the bounds of their intervals; NaN without a bound."""

    numbers: Sequence[float]
    scores: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


def sensitivity(
    panels: Mapping[str, Mapping[str, Band]],
    levels: Mapping[str, Mapping[str, Mapping[str, float]]],
    axis: str,
) -> Figure:
    """Draw Figure 7: scores over a number, a panel for each metric.

    Args:
        panels: metric to data set to the scores.
        levels: metric to data set to label and score of networks without the number.
        axis: name of the number.
    """
    figure = Figure(figsize=(4.5 * len(panels), 3.4), layout="constrained")
    [row] = figure.subplots(1, len(panels), squeeze=False)
    for axes, (metric, curves) in zip(row, panels.items(), strict=True):
        for dataset, band in curves.items():
            [line] = axes.plot(band.numbers, band.scores, marker="o", label=dataset)
            axes.fill_between(
                band.numbers, band.lows, band.highs, color=line.get_color(), alpha=0.15, lw=0
            )
            for label, score in levels.get(metric, {}).get(dataset, {}).items():
                axes.axhline(score, linestyle="--", color=line.get_color(), alpha=0.6)
                place = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
                axes.annotate(label, (0.99, score), **place)
        axes.set(xlabel=axis, ylabel=f"{metric} (%)")
        axes.grid(alpha=0.3)
        axes.margins(y=0.15)
    row[0].legend()
    return figure


def draw_training_curves(panels: Mapping[str, Mapping[str, pd.Series]], quantity: str) -> Figure:
    """Draw what was measured in each epoch, a panel for each network, all with the same axes.

    A phone shows the plot unscaled. No line is cut at a frame and no axis has ticks, which would
    take more bytes than the lines.

    Args:
        panels: title to the label of a line to the values, whose index holds the epochs.
        quantity: name of the values.
    """
    columns = min(len(panels), PANELS)
    rows = ceil(len(panels) / columns)
    letters = int((_PHONE - 0.4) / columns / _LABEL_LETTER)
    titles = [textwrap.fill(title, letters) for title in panels]
    lines = max(title.count("\n") for title in titles) + 1
    height = rows * (0.75 + _LABEL_LINE * lines) + 0.9
    figure = Figure(figsize=(_PHONE, height), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    places = list(grid.flat)
    for axes in places[len(panels) :]:
        axes.remove()
    handles: dict[str, Line2D] = {}
    for place, (title, curves) in enumerate(zip(titles, panels.values(), strict=True)):
        axes = places[place]
        for number, (label, values) in enumerate(curves.items()):
            [handles[label]] = axes.plot(
                values.index,
                values,
                color=f"C{number}",
                linestyle=LINES[number % len(LINES)],
                marker=".",
                markevery=[-1],  # an only epoch is seen, too
                clip_on=False,
            )
        axes.set_title(title, fontsize=_LABEL)
        axes.grid(axis="y", alpha=0.3, clip_on=False)
        axes.patch.set_visible(False)
        axes.tick_params(labelsize=_LABEL, left=False, bottom=False)
        axes.tick_params(labelbottom=place + columns >= len(panels))
        axes.spines[["right", "top"]].set_visible(False)
    places[0].locator_params(axis="x", integer=True, nbins=3)
    places[0].locator_params(axis="y", nbins=3)
    places[0].set_ylim(bottom=0)
    figure.supxlabel("epoch", fontsize=_LABEL)
    figure.legend(
        handles.values(),
        handles,
        loc="outside upper center",
        title=quantity,
        title_fontsize=_LABEL,
        ncols=PANELS,
        fontsize=_LABEL,
    )
    return figure


class Cost(NamedTuple):
    """Billions of multiply-adds of a network for an image, and its score in percent."""

    label: str
    multiply_adds: float
    score: float


def draw_scores_over_costs(panels: Mapping[str, Sequence[Cost]], metric: str) -> Figure:
    """Draw scores over multiply-adds, a panel for each title.

    Labels stand at the right in the order of the scores. So none hides a point or another label.

    Args:
        panels: title to networks.
        metric: name of the score.
    """
    heights = [max(0.2 * len(costs), 1) + 0.9 for costs in panels.values()]
    figure = Figure(figsize=(8, sum(heights)), layout="constrained")
    rows = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (title, costs) in zip(rows, panels.items(), strict=True):
        order = sorted(costs, key=lambda cost: cost.score, reverse=True)
        for cost, height in zip(order, np.linspace(1, 0, len(order)), strict=True):
            axes.annotate(
                cost.label,
                (cost.multiply_adds, cost.score),
                (1.03, height),
                textcoords="axes fraction",
                va="center",
                fontsize=NORMAL,
                arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6, "relpos": (0, 0.5)},
            )
            axes.plot(cost.multiply_adds, cost.score, "o", color="C0")
        axes.set(title=title, xlabel="multiply-adds of an image, G", ylabel=f"{metric} (%)")
        axes.margins(0.08)
        axes.grid(alpha=0.3)
    return figure


class Gain(NamedTuple):
    """A difference between two networks in points of percent, with its interval.

    Attributes:
        finding: whether the difference is distinguished from 0.
    """

    label: str
    mean: float
    low: float
    high: float
    finding: bool


def draw_forest(panels: Mapping[tuple[str, str], Sequence[Gain]]) -> Figure:
    """Draw gains with their intervals, each below its label: a forest plot.

    With one or two metrics a phone shows the plot unscaled.

    Args:
        panels: data set and metric to the gains. A data set is a row of panels.
    """
    datasets = list(dict.fromkeys(dataset for dataset, _ in panels))
    metrics = list(dict.fromkeys(metric for _, metric in panels))
    width = _PHONE * max(len(metrics), 2) / 2
    labels: dict[str, dict[str, None]] = {name: {} for name in datasets}
    for (dataset, _), gains in panels.items():
        labels[dataset].update(dict.fromkeys(gain.label for gain in gains))
    stacks = [_stack(labels[name], int(width / _LABEL_LETTER)) for name in datasets]
    ends = [max(place for _, place in stack.values()) + 0.7 for stack in stacks]
    heights = [_LABEL_LINE * end + 0.8 for end in ends]
    figure = Figure(figsize=(width, sum(heights) or 1), layout="constrained")
    if not panels:
        return figure
    rows = figure.subplots(
        len(datasets), len(metrics), sharey="row", squeeze=False, height_ratios=heights
    )
    for dataset, row, stack, end in zip(datasets, rows, stacks, ends, strict=True):
        for metric, axes in zip(metrics, row, strict=True):
            for gain in panels.get((dataset, metric), ()):
                _, place = stack[gain.label]
                color = "C7" if not gain.finding else "C2" if gain.mean > 0 else "C3"
                axes.plot([gain.low, gain.high], [place, place], color=color, lw=1.5)
                face = color if gain.finding else "white"
                axes.plot(gain.mean, place, marker="o", mfc=face, mec=color)
            axes.axvline(0, color="black", lw=0.8)
            axes.set_title(dataset, fontsize=_LABEL)
            axes.set_xlabel(f"gain in {metric}, points", fontsize=_LABEL)
            axes.tick_params(labelsize=_LABEL)
            axes.set_yticks([])
            axes.spines[["left", "right", "top"]].set_visible(False)
            axes.grid(axis="x", alpha=0.3)
        row[0].set_ylim(end, 0.4)
        for text, place in stack.values():
            row[-1].text(  # the panel that is drawn last, as a label lies over all of them
                0,
                place - 0.4,
                text,
                transform=row[0].get_yaxis_transform(),
                va="bottom",
                fontsize=_LABEL,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
                in_layout=False,
            )
    return figure


def _stack(labels: Iterable[str], letters: int) -> dict[str, tuple[str, float]]:
    """Labels below each other, with room for a bar below each.

    Returns:
        Label to the label in lines of so many letters, and the place of the bar in lines.
    """
    stack: dict[str, tuple[str, float]] = {}
    place = 0.0
    for label in labels:
        text = textwrap.fill(label, letters)
        place += text.count("\n") + 2.25
        stack[label] = text, place
    return stack
