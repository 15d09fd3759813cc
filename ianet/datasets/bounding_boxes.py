"""The layout that Market-1501 began and DukeMTMC-reID took over: three folders of images.

    bounding_box_train, query, bounding_box_test

with identity and camera in the names of the images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ianet.datasets.listing import JUNK, Listing, check_counts, counted, ordered
from ianet.datasets.source import image_opener, open_source

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
DISTRACTOR = 0


class Layout(NamedTuple):
    """How one of these data sets is named, and what is in it.

    Attributes:
        name: of the data set.
        pattern: of an image's name; its first group is the identity, its second the camera.
        example: a name in words, for the messages.
        cameras: numbers that exist.
        published: counts, by the names of `read_boxes`'s.
        expected: what should lie at the source, and where it is to be had.
    """

    name: str
    pattern: re.Pattern[str]
    example: str
    cameras: range
    published: dict[str, int]
    expected: str


def read_boxes(source: Path, layout: Layout, *, published: bool) -> Listing:
    """The images of a data set in this layout; junk (identity -1) is dropped and counted.

    Args:
        source: the folder, the zip or the tar; the three folders may lie at any depth in it.
        layout: of the data set.
        published: whether the counts must be those that were published.

    Raises:
        FileNotFoundError: no source, or a folder is missing from it.
        ValueError: a damaged source, a misnamed image, or counts that are not the published.
    """
    files = open_source(source, layout.expected)
    splits = {folder: split for split, folder in FOLDERS.items()}
    found = dict.fromkeys(FOLDERS, 0)
    rows = []
    junk = 0
    for path in files.paths():
        where = PurePosixPath(path)
        split = splits.get(where.parent.name)
        if split is None or where.suffix.lower() != ".jpg":
            continue
        found[split] += 1
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
    for split, images in found.items():
        if not images:
            raise FileNotFoundError(
                f"{source} holds no image in a folder {FOLDERS[split]}. Expected: {layout.expected}"
            )
    table = ordered(rows)
    distractors = int(((table.split == "gallery") & (table.person == DISTRACTOR)).sum())
    everything = {**counted(table), "distractors": distractors, "junk dropped": junk}
    counts = {name: everything[name] for name in layout.published}
    if published:
        check_counts(source, layout.name, counts, layout.published)
    return Listing(table, counts, image_opener(files))


def are_boxes(paths: Sequence[str], layout: Layout) -> bool:
    """Whether the first image of a training folder is named as in the layout."""
    names = (
        where.name
        for where in map(PurePosixPath, paths)
        if where.parent.name == FOLDERS["train"] and where.suffix.lower() == ".jpg"
    )
    return layout.pattern.fullmatch(next(names, "")) is not None
