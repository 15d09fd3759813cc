"""The layout of Market-1501 and DukeMTMC-reID: three folders of images.

    bounding_box_train, query, bounding_box_test

with identity and camera in the names of the images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ianet.datasets.listing import JUNK, Listing, check_counts, count_images, sort_rows
from ianet.datasets.source import image_opener, open_source

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
DISTRACTOR = 0


class Layout(NamedTuple):
    """Names and contents of a data set in this layout.

    Attributes:
        name: of the data set.
        pattern: of an image's name; its first group is the identity, its second the camera.
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
        ValueError: a damaged source, a misnamed image, or counts that are not the published.
    """
    files = open_source(source, layout.expected)
    splits = {folder: split for split, folder in FOLDERS.items()}
    images = dict.fromkeys(FOLDERS, 0)
    rows = []
    junk = 0
    for path in files.paths():
        where = PurePosixPath(path)
        split = splits.get(where.parent.name)
        if split is None or where.suffix.lower() != ".jpg":
            continue
        images[split] += 1
        name = layout.pattern.fullmatch(where.name)
        if name is None or int(name[2]) not in layout.cameras:
            raise ValueError(
                f"{source}: {path} is not named like {layout.example}: remove or rename it"
            )
        person = int(name[1])
        if person == JUNK:
            junk += 1
        else:
            rows.append((path, person, int(name[2]), split))
    for split, number in images.items():
        if not number:
            raise FileNotFoundError(
                f"{source} holds no image in a folder {FOLDERS[split]}. Expected: {layout.expected}"
            )
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
        where.name
        for where in map(PurePosixPath, paths)
        if where.parent.name == FOLDERS["train"] and where.suffix.lower() == ".jpg"
    )
    return layout.pattern.fullmatch(next(names, "")) is not None
