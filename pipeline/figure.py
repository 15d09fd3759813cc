"""A figure of the paper -> results/figures/<name>.svg.

    python -m pipeline.figure figure8
    python -m pipeline.figure figure8 --run market1501-stage23-short-0 --to build/figure8.svg

The first shows synthetic people, as seen by the synthetic run of the figure's network. The second
shows what another trained run sees in the photographs that the figure names for its data set.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from ianet import drawing, images, receptive
from ianet.datasets import synthetic
from ianet.network import Network
from ianet.network import load as load_network
from pipeline.experiments import Portraits
from pipeline.plan import FIGURES, SYNTHETIC, TABLE, Plan, Run, load_plan
from pipeline.settings import Settings, SettingsError
from pipeline.shell import stage, write_whole


class Sitter(NamedTuple):
    """A person to be shown.

    Attributes:
        label: under the image.
        image: (height, width, 3) uint8.
        points: name to (x, y), in fractions of width and height.
    """

    label: str
    image: NDArray[np.uint8]
    points: dict[str, drawing.Point]


def synthetic_people(figure: Portraits, seed: int) -> list[Sitter]:
    """The people that the figure describes, drawn."""
    height, width = figure.size
    sitters = []
    for person in figure.people:
        described = person.model_dump(exclude={"label"})
        image, spots = synthetic.portrait(**described, height=height, width=width, seed=seed)
        points = {name: (x / width, y / height) for name, (x, y) in spots.items()}
        sitters.append(Sitter(person.label, image, points))
    return sitters


def photographed_people(figure: Portraits, run: Run, size: str) -> list[Sitter]:
    """The images of the run's data set that the figure names, at the figure's size.

    Raises:
        SettingsError: the figure names none, or one that the data set lacks.
    """
    if run.dataset not in figure.photographs:
        raise SettingsError(f"{figure.title} names no photographs of {run.dataset}")
    height, width = figure.size
    paths = pd.read_parquet(run.prepared / TABLE).path
    names = paths.str.rpartition("/")[2]
    sitters = []
    for photograph in figure.photographs[run.dataset]:
        mask = (names == photograph.image).to_numpy()
        if mask.sum() != 1:
            raise SettingsError(f"{run.dataset} has {mask.sum()} images {photograph.image}, not 1")
        [packed] = images.load(run.prepared / f"{size}.npy", mask).numpy()
        image = Image.fromarray(packed).resize((width, height), Image.Resampling.BILINEAR)
        points = {name: (x, y) for name, (y, x) in photograph.points.items()}
        sitters.append(Sitter(photograph.label, np.asarray(image), points))
    return sitters


def portrayed(
    figure: Portraits, network: Network, sitters: list[Sitter]
) -> list[drawing.Portrayed]:
    """The people with the receptive fields of their points, and the channels asked for.

    Raises:
        ValueError: a point or a channel that is not there, and what `ianet.receptive` raises.
    """
    for sitter in sitters:
        for name in figure.points:
            if not all(0 <= share < 1 for share in sitter.points.get(name, (-1.0,))):
                raise SettingsError(f"{sitter.label}: there is no point {name!r} in the image")
    images = torch.from_numpy(np.stack([sitter.image for sitter in sitters]))
    inside = receptive.inside(network, figure.stage, images)
    _, width_of_block, height, width = inside.features.shape
    if figure.channels and inside.channels is None:
        raise SettingsError(f"the block after {figure.stage} has no CIA, so no channels of it")
    for channel in figure.channels:
        if channel > width_of_block:
            raise SettingsError(
                f"channel {channel} is out of range: {figure.stage} has {width_of_block} channels"
            )
    relations = {
        (label, title): inside.relation(**{**options, **line.options}).numpy()
        for label, line in figure.lines.items()
        for title, options in figure.maps.items()
    }

    def field(number: int, label: str, title: str, name: str) -> drawing.Map:
        x, y = sitters[number].points[name]
        values = relations[label, title][number, int(y * height), int(x * width)]
        return drawing.Map(values, f"{title}\n{name}", (x, y), figure.lines[label].logarithmic)

    def channel_map(number: int, channel: int) -> drawing.Map:
        assert inside.channels is not None
        return drawing.Map(inside.channels[number, channel - 1].numpy(), f"CIA\nchannel {channel}")

    return [
        drawing.Portrayed(
            label=sitter.label,
            image=sitter.image,
            points=[sitter.points[name] for name in figure.points],
            lines={
                label: [
                    field(number, label, title, name)
                    for name in figure.points
                    for title in figure.maps
                ]
                for label in figure.lines
            },
            channels=[channel_map(number, channel) for channel in figure.channels],
        )
        for number, sitter in enumerate(sitters)
    ]


def draw(figure: Portraits, run: Run, settings: Settings) -> str:
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
        sitters = synthetic_people(figure, settings.synthetic.seed)
    else:
        sitters = photographed_people(figure, run, size)
    rows = portrayed(figure, load_network(run.folder), sitters)
    height, width = figure.size
    note = (
        f"Run {run.key}, trained on images of {size}, here fed with {height}x{width}; "
        f"the block after {figure.stage}."
    )
    return drawing.svg(drawing.portraits(rows, figure.title, f"{figure.caption} {note}"))


def default_run(figure: Portraits, plan: Plan) -> Run:
    """The run that the pipeline draws the figure from.

    Raises:
        SettingsError: there is none.
    """
    run = plan.portrayed(figure)
    if run is None:
        raise SettingsError(
            f"{figure.title} shows synthetic people as {figure.network} sees them, but that is "
            "not at hand: give --run and --to"
        )
    return run


def run_named(key: str, settings: Settings) -> Run:
    """The run with that key.

    Raises:
        SettingsError: params.yaml has no data set, network and recipe of these names.
    """
    names, _, seed = key.rpartition("-")
    for parts in product(settings.datasets, settings.networks, settings.recipes):
        if "-".join(parts) == names and seed.isdecimal():
            return Run(*parts, int(seed))
    raise SettingsError(
        f"{key!r} is no run: give <data set>-<network>-<recipe>-<seed>, with names of params.yaml"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.figure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="of a file in experiments/")
    parser.add_argument("--run", help="another trained run, by its key")
    parser.add_argument("--to", type=Path, help="the file for its figure")
    arguments = parser.parse_args()
    if (arguments.run is None) != (arguments.to is None):
        raise SettingsError("--run and --to go together: results/figures has the default run only")
    plan = load_plan()
    figure = plan.described(arguments.name, Portraits)
    if arguments.run is None:
        run, target = default_run(figure, plan), FIGURES / f"{arguments.name}.svg"
    else:
        run, target = run_named(arguments.run, plan.settings), arguments.to
    settings = plan.settings
    write_whole(target, draw(figure, run, settings))
    print(f"{target}: {figure.title} of {run.key}")


if __name__ == "__main__":
    with stage():
        main()
