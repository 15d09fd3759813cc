"""The layout of Market-1501 and DukeMTMC-reID: three folders of images.

    bounding_box_train, query, bounding_box_test

with identity and camera in the names of the images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ianet.datasets.listing import (
    IMAGES,
    JUNK,
    Listing,
    check_counts,
    check_single,
    count_images,
    sort_rows,
)
from ianet.datasets.source import image_opener, open_source

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
DISTRACTOR = 0


class Layout(NamedTuple):
    """Names and contents of a data set in this layout.

    Attributes:
        name: of the data set.
        pattern: of an image's name without its suffix; the first group is the identity, the second
            the camera.
        example: a name in words, for the messages.
        cameras: numbers that exist.
        published: counts that were published, by the names in `read_boxes`.
        expected: what the source should hold, and who distributes the data.
    """

    name: str
    pattern: re.Pattern[str]
    example: str
    cameras: range
    published: dict[str, int]
    expected: str


def read_boxes(source: Path, layout: Layout, *, published: bool) -> Listing:
    """Return the images of a data set in this layout; junk (identity -1) is only counted.

    Args:
        source: the folder, the zip or the tar, with the three folders at any depth.
        layout: of the data set.
        published: whether the counts must be those that were published.

    Raises:
        FileNotFoundError: no source, or the source lacks a folder.
        ValueError: a damaged source, several data sets in one source, a misnamed image, or counts
            that are not the published.
    """
    files = open_source(source, layout.expected)
    splits = {folder: split for split, folder in FOLDERS.items()}
    places: dict[str, set[str]] = {folder: set() for folder in splits}
    rows = []
    junk = 0
    for path in files.paths():
        where = PurePosixPath(path)
        split = splits.get(where.parent.name)
        if split is None or where.suffix.lower() not in IMAGES:
            continue
        places[where.parent.name].add(where.parent.parent.as_posix())
        name = layout.pattern.fullmatch(where.stem)
        if name is None or int(name[2]) not in layout.cameras:
            raise ValueError(
                f"{source}: {path} is not named like {layout.example}: remove or rename it"
            )
        person = int(name[1])
        if person == JUNK:
            junk += 1
        else:
            rows.append((path, person, int(name[2]), split))
    for folder, parents in places.items():
        if not parents:
            raise FileNotFoundError(
                f"{source} holds no image in a folder {folder}. Expected: {layout.expected}"
            )
    check_single(source, places)
    table = sort_rows(rows)
    distractors = int(((table.split == "gallery") & (table.person == DISTRACTOR)).sum())
    everything = {**count_images(table), "distractors": distractors, "junk dropped": junk}
    counts = {name: everything[name] for name in layout.published}
    if published:
        check_counts(source, layout.name, counts, layout.published)
    return Listing(table, counts, image_opener(files))


def are_boxes(paths: Sequence[str], layout: Layout) -> bool:
    """Return whether the name of the first training image follows the layout."""
    names = (
        where.stem
        for where in map(PurePosixPath, paths)
        if where.parent.name == FOLDERS["train"] and where.suffix.lower() in IMAGES
    )
    return layout.pattern.fullmatch(next(names, "")) is not None
