"""Where an IA block gathers features from: the maps of people in Figures 4 and 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ianet.blocks.ia import IABlock
from ianet.maps import HeatMap, PersonMaps, Point
from ianet.network import Network
from ianet.receptive import view_block


class Person(NamedTuple):
    """A person of a figure.

    Attributes:
        label: printed under the image.
        image: (height, width, 3) uint8.
        points: name to (x, y), in fractions of width and height.
    """

    label: str
    image: NDArray[np.uint8]
    points: Mapping[str, Point]


@dataclass(frozen=True)
class Variant:
    """A line of relation maps.

    Attributes:
        options: of `SpatialIA`, in place of those of the trained block.
        logarithmic: whether colours follow the logarithm.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    logarithmic: bool = False


SEMANTIC: Mapping[str, Mapping[str, Any]] = {"S": {}}
"""The relation of the block itself."""
VARIANTS: Mapping[str, Variant] = {
    "as trained": Variant(),
    "scaled, renormalised": Variant(
        {"scale": "rsqrt_channels", "normalization": "renormalized"}, logarithmic=True
    ),
}
"""What the block computes, and what the same features tell where a softmax does not hide them."""


def find_stages(network: Network) -> list[str]:
    """Return the stages whose last block has SIA, in the order in which they run."""
    lasts = {stage: list(blocks.children())[-1] for stage, blocks in network.blocks.items()}
    return [
        stage
        for stage in network.stages
        if isinstance(block := lasts.get(stage), IABlock) and block.sia is not None
    ]


def compute_maps(
    network: Network,
    stage: str,
    people: Sequence[Person],
    *,
    points: Sequence[str],
    maps: Mapping[str, Mapping[str, Any]] = SEMANTIC,
    variants: Mapping[str, Variant] = VARIANTS,
    channels: Sequence[int] = (),
) -> list[PersonMaps]:
    """Return the people with the receptive fields of their points, and with channels of CIA.

    Args:
        network: in evaluation mode.
        stage: whose last block is shown.
        people: with images of one size.
        points: names of the points that are shown of each person.
        maps: title to options of `SpatialIA`: a receptive field of each point.
        variants: label to what distinguishes a line of these maps from the next.
        channels: of CIA's output, counted from 1.

    Returns:
        For each person, a line of maps for each variant. A map, (H, W), has the weights of all
        positions of the stage's output, of each point and each of `maps`. Channels are (H, W).

    Raises:
        ValueError: a point or a channel that is not there, or as `ianet.receptive.view_block`.
    """
    for person in people:
        for name in points:
            if not all(0 <= fraction < 1 for fraction in person.points.get(name, (-1.0,))):
                raise ValueError(f"{person.label}: there is no point {name!r} in the image")
    view = view_block(network, stage, torch.from_numpy(np.stack([each.image for each in people])))
    number, height, width = view.features.shape[1:]
    if channels and view.channels is None:
        raise ValueError(f"the block after {stage} has no CIA, so no channels of it")
    for channel in channels:
        if not 1 <= channel <= number:
            raise ValueError(
                f"channel {channel} is out of range: {stage} has {number} channels, from 1"
            )
    relations = {
        (label, title): view.relation(**{**options, **variant.options}).numpy()
        for label, variant in variants.items()
        for title, options in maps.items()
    }

    def receptive_field(row: int, label: str, title: str, name: str) -> HeatMap:
        x, y = people[row].points[name]
        values = relations[label, title][row, int(y * height), int(x * width)]
        return HeatMap(values, f"{title}\n{name}", (x, y), variants[label].logarithmic)

    def channel_map(row: int, channel: int) -> HeatMap:
        assert view.channels is not None
        return HeatMap(view.channels[row, channel - 1].numpy(), f"CIA\nchannel {channel}")

    return [
        PersonMaps(
            label=person.label,
            image=person.image,
            points=[person.points[name] for name in points],
            lines={
                label: [
                    receptive_field(row, label, title, name) for name in points for title in maps
                ]
                for label in variants
            },
            channels=[channel_map(row, channel) for channel in channels],
        )
        for row, person in enumerate(people)
    ]
