"""Figures of relation maps: people, and the receptive fields of points of their bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from ianet import drawing
from ianet.images import load as load_images
from ianet.network import Network
from ianet.network import load as load_network
from ianet.receptive import BlockView, view_block
from ianet.synthetic.portrait import portrait
from pipeline.config.experiments import RelationFigure
from pipeline.config.settings import Settings, SettingsError
from pipeline.plan.plan import SYNTHETIC
from pipeline.plan.runs import TABLE, Run


class Person(NamedTuple):
    """A person of a figure.

    Attributes:
        label: printed under the image.
        image: (height, width, 3) uint8.
        points: name to (x, y), in fractions of width and height.
    """

    label: str
    image: NDArray[np.uint8]
    points: dict[str, drawing.Point]


def draw_people(figure: RelationFigure, seed: int) -> list[Person]:
    """The synthetic people that the figure describes; `seed` is that of the synthetic set."""
    height, width = figure.size
    people = []
    for person in figure.people:
        description = person.model_dump(exclude={"label"})
        image, spots = portrait(**description, height=height, width=width, seed=seed)
        points = {name: (x / width, y / height) for name, (x, y) in spots.items()}
        people.append(Person(person.label, image, points))
    return people


def read_photographs(figure: RelationFigure, run: Run, size: str) -> list[Person]:
    """The images of the run's data set that the figure names, at the figure's size.

    Args:
        figure: names the images.
        run: of the data set.
        size: of the packed images, height x width.

    Raises:
        SettingsError: the figure names none, or one that the data set lacks.
    """
    if run.dataset not in figure.photographs:
        raise SettingsError(f"{figure.title} names no photographs of {run.dataset}")
    height, width = figure.size
    paths = pd.read_parquet(run.prepared / TABLE).path
    names = paths.str.rpartition("/")[2]
    people = []
    for photograph in figure.photographs[run.dataset]:
        mask = (names == photograph.image).to_numpy()
        if mask.sum() != 1:
            raise SettingsError(f"{run.dataset} has {mask.sum()} images {photograph.image}, not 1")
        [pixels] = load_images(run.prepared / f"{size}.npy", mask).numpy()
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        points = {name: (x, y) for name, (y, x) in photograph.points.items()}
        people.append(Person(photograph.label, np.asarray(image), points))
    return people


def check_points(figure: RelationFigure, people: Sequence[Person]) -> None:
    """Refuse a point that is not in the image of each person.

    Raises:
        SettingsError: the message names person and point.
    """
    for person in people:
        for name in figure.points:
            if not all(0 <= fraction < 1 for fraction in person.points.get(name, (-1.0,))):
                raise SettingsError(f"{person.label}: there is no point {name!r} in the image")


def check_channels(figure: RelationFigure, view: BlockView) -> None:
    """Refuse a channel that the block does not have.

    Raises:
        SettingsError: the message names the channel, or says that there is no CIA.
    """
    channels = view.features.shape[1]
    if figure.channels and view.channels is None:
        raise SettingsError(f"the block after {figure.stage} has no CIA, so no channels of it")
    for channel in figure.channels:
        if channel > channels:
            raise SettingsError(
                f"channel {channel} is out of range: {figure.stage} has {channels} channels"
            )


def compute_maps(
    figure: RelationFigure, network: Network, people: Sequence[Person]
) -> list[drawing.PersonMaps]:
    """The people with the receptive fields of their points, and the channels asked for.

    Raises:
        ValueError: a point or a channel that is not there, or as `view_block`.
    """
    check_points(figure, people)
    images = torch.from_numpy(np.stack([person.image for person in people]))
    view = view_block(network, figure.stage, images)
    check_channels(figure, view)
    height, width = view.features.shape[2:]
    relations = {
        (label, title): view.relation(**{**options, **variant.options}).numpy()
        for label, variant in figure.variants.items()
        for title, options in figure.maps.items()
    }

    def receptive_field(number: int, label: str, title: str, name: str) -> drawing.HeatMap:
        x, y = people[number].points[name]
        values = relations[label, title][number, int(y * height), int(x * width)]
        logarithmic = figure.variants[label].logarithmic
        return drawing.HeatMap(values, f"{title}\n{name}", (x, y), logarithmic)

    def channel_map(number: int, channel: int) -> drawing.HeatMap:
        assert view.channels is not None
        values = view.channels[number, channel - 1].numpy()
        return drawing.HeatMap(values, f"CIA\nchannel {channel}")

    return [
        drawing.PersonMaps(
            label=person.label,
            image=person.image,
            points=[person.points[name] for name in figure.points],
            lines={
                label: [
                    receptive_field(number, label, title, name)
                    for name in figure.points
                    for title in figure.maps
                ]
                for label in figure.variants
            },
            channels=[channel_map(number, channel) for channel in figure.channels],
        )
        for number, person in enumerate(people)
    ]


def draw_figure(figure: RelationFigure, run: Run, settings: Settings) -> str:
    """The figure as SVG, from a trained run.

    Raises:
        FileNotFoundError: the run is not trained, or its data set not prepared.
        ValueError: the figure asks for what the run does not have.
    """
    if not run.folder.exists():
        raise FileNotFoundError(
            f"{run.folder} does not exist: `dvc repro train@{run.key}` trains that run"
        )
    size = settings.recipes[run.recipe].size
    if settings.datasets[run.dataset].source == SYNTHETIC:
        people = draw_people(figure, settings.synthetic.seed)
    else:
        people = read_photographs(figure, run, size)
    maps = compute_maps(figure, load_network(run.folder), people)
    height, width = figure.size
    note = (
        f"Run {run.key}, trained on images of {size}, here fed with {height}x{width}; "
        f"the block after {figure.stage}."
    )
    return drawing.svg(drawing.relation_maps(maps, figure.title, f"{figure.caption} {note}"))
