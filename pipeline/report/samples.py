"""Some images of the drawn data sets at hand, for the page."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image

from ianet.packed_file import map_images
from ianet.ranks_page import draw_thumbnail
from pipeline.config.settings import Settings
from pipeline.data.splits import split_of_run
from pipeline.plan.records import read_table
from pipeline.plan.runs import PREPARED, prepared_files

PERSONS, SHOTS = 4, 3  # images of each person


class Samples(NamedTuple):
    """Some queries of a data set.

    Attributes:
        images: the data URL of each, and who is shown by which camera.
    """

    dataset: str
    images: list[tuple[str, str]]


def find_samples(settings: Settings) -> list[Samples]:
    """Some queries of each drawn data set at hand that is prepared.

    Photographs stay off the page, as in `Plan.shown_runs`: their terms forbid a publication.
    """
    samples = []
    for name in settings.at_hand:
        dataset = settings.datasets[name]
        size = settings.recipes[dataset.recipes["plain"]].size
        files = [PREPARED / name / file for file in prepared_files(size)]
        if dataset.synthetic is not None and all(file.exists() for file in files):
            samples.append(Samples(name, _draw_queries(name, size)))
    return samples


def _draw_queries(dataset: str, size: str) -> list[tuple[str, str]]:
    """The first queries of the first persons."""
    table = read_table(PREPARED / dataset)
    queries = table[split_of_run(table, 0, hold_out=False) == "query"]
    sample = queries.groupby("person").head(SHOTS).head(PERSONS * SHOTS)
    images = map_images(PREPARED / dataset / f"{size}.npy", len(table))
    pixels = dict(zip(sample.path, images[table.index.isin(sample.index)], strict=True))

    def open_picture(path: str) -> Image.Image:
        return Image.fromarray(pixels[path])

    return [
        (draw_thumbnail(path, open_picture)[0], f"person {person}, camera {camera}")
        for path, person, camera in zip(sample.path, sample.person, sample.camera, strict=True)
    ]
