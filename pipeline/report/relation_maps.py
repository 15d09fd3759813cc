"""Figures of relation maps: people, and the receptive fields of points of their bodies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ianet import attention, drawing
from ianet.attention import Person, Variant
from ianet.images import load as load_images
from ianet.maps import PersonMaps, draw_maps
from ianet.network import Network
from ianet.network import load as load_network
from ianet.synthetic.portrait import portrait
from pipeline.config.experiments import RelationFigure
from pipeline.config.settings import Settings, SettingsError
from pipeline.plan.records import read_table
from pipeline.plan.runs import Run


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
    paths = read_table(run.prepared).path
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


def compute_maps(
    figure: RelationFigure, network: Network, people: Sequence[Person]
) -> list[PersonMaps]:
    """The people with the receptive fields of their points, and the channels asked for.

    Raises:
        SettingsError: the figure asks for what the people or the network do not have.
    """
    try:
        return attention.compute_maps(
            network,
            figure.stage,
            people,
            points=figure.points,
            maps=figure.maps,
            variants={
                label: Variant(variant.options, variant.logarithmic)
                for label, variant in figure.variants.items()
            },
            channels=figure.channels,
        )
    except ValueError as error:
        raise SettingsError(f"{figure.title}: {error}") from error


def draw_figure(figure: RelationFigure, run: Run, settings: Settings) -> str:
    """The figure as SVG, without its title, from a trained run.

    Raises:
        FileNotFoundError: the run is not trained, or its data set not prepared.
        SettingsError: the figure asks for what the run does not have.
    """
    if not run.folder.exists():
        raise FileNotFoundError(
            f"{run.folder} does not exist: `dvc repro train@{run.key}` trains that run"
        )
    size = settings.recipes[run.recipe].size
    if (sizes := settings.datasets[run.dataset].synthetic) is not None:
        people = draw_people(figure, sizes.seed)
    else:
        people = read_photographs(figure, run, size)
    maps = compute_maps(figure, load_network(run.folder), people)
    height, width = figure.size
    note = (
        f"Run {run.key}, trained on images of {size}, here fed with {height}x{width}; "
        f"the block after {figure.stage}."
    )
    return drawing.svg(draw_maps(maps, "", f"{figure.caption} {note}"))
