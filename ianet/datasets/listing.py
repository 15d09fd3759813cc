"""What every reader of a data set returns, and what readers share.

A reader is a module of this folder, named as `reader` in params.yaml, with

    read(source, *, published, ...) -> Listing      further keywords are `options` in params.yaml
    fits(paths) -> bool                             whether files of these paths are in its layout;
                                                    `ianet.readers` guesses a reader by `fits`
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ianet.datasets.source import Opener
from ianet.options import Scoring

SPLITS = ("train", "query", "gallery")
JUNK = -1
IMAGES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".pgm", ".ppm"),
)
"""Suffixes of images. An image of a format that Pillow lacks is refused when it is decoded."""


class Listing(NamedTuple):
    """The images of a data set.

    Attributes:
        table: a row an image: path (within the source), person and camera (integers or text)
            and split, one of `SPLITS`. A set with several published splits has a column for
            each split, split_0, split_1, ..., with "" for images that a split omits.
        counts: of images and identities, by name.
        open: decodes the image of a path; several threads may call this function at once.
            ValueError names an image that cannot be decoded.
        scoring: "ranking" (`ianet.retrieval`) or "single_shot" (`ianet.single_shot`), by the
            protocol of the set.
    """

    table: pd.DataFrame
    counts: dict[str, int]
    open: Opener
    scoring: Scoring = "ranking"


def read_csv(content: bytes) -> pd.DataFrame:
    """Return a CSV file as text, without blanks around names and values.

    Two columns of one name keep this name. pandas would rename the second.

    Raises:
        ValueError: the content is no CSV file; one line.
    """
    try:
        # As text: 007 and NA are names too.
        cells = pd.read_csv(
            io.BytesIO(content),
            header=None,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
        )
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())) from error
    cells = cells.apply(lambda column: column.str.strip())
    return cells[1:].set_axis(cells.iloc[0].tolist(), axis="columns").reset_index(drop=True)


def split_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns with the splits, in order: ["split"] for most sets."""
    return [column for column in table.columns if column == "split" or column.startswith("split_")]


def sort_rows(rows: Iterable[tuple[str, int | str, int | str, str]]) -> pd.DataFrame:
    """Return a table of path, person, camera and split, sorted by split, then by path."""
    table = pd.DataFrame(list(rows), columns=["path", "person", "camera", "split"])
    table = table.sort_values("path", ignore_index=True)
    return table.sort_values(
        "split", key=lambda split: split.map(SPLITS.index), kind="stable", ignore_index=True
    )


def count_images(table: pd.DataFrame) -> dict[str, int]:
    """Return the numbers of images and identities of each split of a table with one split."""
    counts = {}
    for split in SPLITS:
        images = table[table.split == split]
        counts[f"{split} images"] = len(images)
        counts[f"{split} identities"] = images.person.nunique()
    return counts


def check_single(source: Path, places: Mapping[str, Iterable[str]]) -> None:
    """Raise ValueError if a folder of a layout lies in several places, as of several data sets.

    Args:
        source: of the data set.
        places: the folders that hold each folder, by its name.
    """
    for name, parents in places.items():
        first, *others = sorted(parents)
        if others:
            raise ValueError(
                f"{source} holds a folder {name} in ./{first} and in ./{others[0]}, as of several "
                "data sets: name the folder of one data set as source"
            )


def check_counts(
    source: Path, name: str, counts: Mapping[str, int], published: Mapping[str, int]
) -> None:
    """Raise ValueError unless the counts are those published for the data set called `name`."""
    differences = "; ".join(
        f"{what}: {counts[what]:,} instead of {number:,}"
        for what, number in published.items()
        if counts[what] != number
    )
    if differences:
        raise ValueError(
            f"{source} is not all of {name} ({differences}): fetch it again, or set published to "
            "false for a subset (of a command: --option published=false)"
        )
