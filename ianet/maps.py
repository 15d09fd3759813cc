"""Maps over images of people, and their picture: Figures 4 and 8."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ianet.drawing import NORMAL, SMALL

Point = tuple[float, float]
"""x and y, in fractions of an image's width and height."""

# In inches, as no layout of matplotlib supports maps of two sizes; letters are in points.
_MAP = 0.8  # the width of a receptive field
_GAP = 0.12  # between maps, left and right
_FOOT = 0.34  # under a map, for its colours and their numbers
_MARGIN = 0.2
_HEAD = 0.4  # above the first maps, for their titles
_TITLE = 0.2  # above these, for the title of the figure
_LETTER = 0.058  # width of a letter of the caption
_LINE = 0.135  # height of a line of the caption


@dataclass(frozen=True)
class HeatMap:
    """A map over an image, with a scale of colours for this map alone.

    Attributes:
        values: (H, W).
        title: printed above.
        point: whose receptive field the map is; None for other maps.
        logarithmic: whether colours follow the logarithm of the values. The lower half of the
            values then share the coldest colour, as weights differ by a hundred orders of
            magnitude.
    """

    values: NDArray[np.float64]
    title: str
    point: Point | None = None
    logarithmic: bool = False


@dataclass(frozen=True)
class PersonMaps:
    """An image, and the maps over the image.

    Attributes:
        label: printed under the image.
        image: (height, width, 3) uint8.
        points: marked in the image.
        lines: label to a line of receptive fields; lines stand below each other.
        channels: maps of channels, at the end, as tall as the image.
    """

    label: str
    image: NDArray[np.uint8]
    points: Sequence[Point]
    lines: Mapping[str, Sequence[HeatMap]]
    channels: Sequence[HeatMap]


def draw_maps(rows: Sequence[PersonMaps], title: str, caption: str) -> Figure:
    """Draw Figures 4 and 8: images of people below each other, and maps over each image.

    Every map has a scale of colours, with the least and the largest value under the map. The
    weights of a softmax of products are almost uniform. If a receptive field is uniform to 1 %,
    the numbers are its differences from uniform in millionths.

    Args:
        rows: images of one size, with the same lines and channels.
        title: printed above; "" where a page has the title.
        caption: printed below.
    """
    head = _HEAD + (_TITLE if title else 0)
    lines, channels = rows[0].lines, len(rows[0].channels)
    aspect = rows[0].image.shape[0] / rows[0].image.shape[1]
    fields = len(next(iter(lines.values())))
    tall = len(lines) * (_MAP * aspect + _FOOT)
    wide = (tall - _FOOT) / aspect  # of the image and the channels
    first = _MARGIN + wide + 3 * _GAP  # left edge of the fields, after the labels of their lines
    last = first + fields * (_MAP + _GAP) + _GAP  # left edge of the channels
    across = last + channels * (wide + _GAP) + _MARGIN
    text = textwrap.wrap(caption, int((across - 2 * _MARGIN) / _LETTER))
    down = head + len(rows) * tall + len(text) * _LINE + _MARGIN
    figure = Figure(figsize=(across, down))

    def add_axes(left: float, top: float, width: float, height: float) -> Axes:
        box = (left / across, 1 - (top + height) / down, width / across, height / down)
        return figure.add_axes(box, xticks=[], yticks=[])

    def draw(heat_map: HeatMap, left: float, top: float, width: float) -> Axes:
        axes = add_axes(left, top, width, width * aspect)
        bar = add_axes(left, top + width * aspect + 0.06, width, 0.06)
        _draw(heat_map, axes, bar)
        if top == head:
            axes.set_title(heat_map.title, fontsize=NORMAL, pad=4)
        return axes

    for row, person in enumerate(rows):
        top = head + row * tall
        axes = add_axes(_MARGIN, top, wide, wide * aspect)
        axes.imshow(person.image, interpolation="none", extent=(0, 1, 1, 0), aspect="auto")
        axes.set_xlabel(person.label, fontsize=NORMAL)
        _mark(axes, person.points)
        for line, (label, maps) in enumerate(person.lines.items()):
            below = top + line * (_MAP * aspect + _FOOT)
            for column, heat_map in enumerate(maps):
                axes = draw(heat_map, first + column * (_MAP + _GAP), below, _MAP)
                if column == 0:
                    axes.set_ylabel(label, fontsize=NORMAL)
        for column, heat_map in enumerate(person.channels):
            draw(heat_map, last + column * (wide + _GAP), top, wide)
    figure.text(0.5, 1 - _MARGIN / down, title, fontsize=11, ha="center", va="center")
    below = (head + len(rows) * tall) / down
    figure.text(_MARGIN / across, 1 - below, "\n".join(text), fontsize=NORMAL, va="top")
    return figure


def _draw(heat_map: HeatMap, axes: Axes, bar: Axes) -> None:
    values = heat_map.values
    low, high = float(values.min()), float(values.max())
    norm = Normalize(low, high)
    if heat_map.logarithmic:
        values = values.clip(np.finfo(float).tiny)  # the logarithm of 0 has no colour
        low = float(np.median(values))
        norm = LogNorm(low, high)
        ends = f"≤ {low:.0e}", f"{high:.2g}"
    elif heat_map.point and high <= 1.01 * low:
        least, most = (_format_signed(1e6 * (end * values.size - 1)) for end in (low, high))
        ends = least, f"{most} ppm"
    else:
        ends = f"{low:.2g}", f"{high:.2g}"
    axes.imshow(values, "turbo", norm, aspect="auto", interpolation="nearest", extent=(0, 1, 1, 0))
    bar.imshow(np.linspace(0, 1, 64)[None], "turbo", aspect="auto")
    for side, x, end in zip(("left", "right"), (0, 1), ends, strict=True):
        bar.text(x, -0.5, end, fontsize=SMALL, ha=side, va="top", transform=bar.transAxes)
    if heat_map.point:
        _mark(axes, [heat_map.point])


def _format_signed(number: float) -> str:
    return f"{number:+.2g}" if abs(number) < 10 else f"{number:+.0f}"


def _mark(axes: Axes, points: Sequence[Point]) -> None:
    for x, y in points:
        for size, colour in ((7, "black"), (6, "white")):  # visible on any background
            axes.plot(x, y, "o", markersize=size, markerfacecolor="none", markeredgecolor=colour)
