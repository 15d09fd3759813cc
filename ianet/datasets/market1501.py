"""Market-1501 (Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015).

    Market-1501-v15.09.15/bounding_box_train/0002_c1s1_000451_03.jpg

is identity 2, camera 1 (of 6), sequence 1, frame 451, box 3. `query` holds one image for each
test identity and camera, `bounding_box_test` the gallery with its distractors (identity 0000)
and junk (identity -1: badly detected boxes that must not influence the score).
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pandas as pd

from ianet.datasets.source import open_source

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
CAMERAS = range(1, 7)
JUNK = -1
DISTRACTOR = 0

PUBLISHED = {
    "train images": 12_936,
    "train identities": 751,
    "query images": 3_368,
    "query identities": 750,
    "gallery images": 15_913,
    "distractors": 2_798,
    "junk dropped": 3_819,
}
EXPECTED = (
    "Market-1501's zip or folder, Market-1501-v15.09.15 with bounding_box_train (12,936 "
    "images), query (3,368) and bounding_box_test (19,732), to be had from its authors, "
    "Zheng et al., ICCV 2015"
)

# 24 of the published files really end in .jpg.jpg.
_NAME = re.compile(r"(-?\d+)_c(\d+)s\d+_\d+_\d+(?:\.jpg){1,2}")


class Listing(NamedTuple):
    """What a reader found.

    Attributes:
        table: one row an image: path (within the source), person, camera, and split, one of
            "train", "query" and "gallery"; sorted by split as in `FOLDERS`, then by path.
        counts: what was found, by the names of `PUBLISHED`.
    """

    table: pd.DataFrame
    counts: dict[str, int]


def read(source: Path, *, published: bool = True) -> Listing:
    """The images of Market-1501, or of any set in its layout; junk is dropped and counted.

    Args:
        source: the folder or the zip; the three folders may lie at any depth in it.
        published: whether the counts must be those of Market-1501 as published; False allows
            a subset, or another set.

    Raises:
        FileNotFoundError: no source, or a folder is missing from it.
        ValueError: a damaged source, a misnamed image, or counts that are not the published.
    """
    files = open_source(source, EXPECTED)
    rows: list[tuple[str, int, int, str]] = []
    found = dict.fromkeys(FOLDERS, 0)
    splits = {folder: split for split, folder in FOLDERS.items()}
    junk = 0
    for path in sorted(files.find("")):
        where = PurePosixPath(path)
        split = splits.get(where.parent.name)
        if split is None or where.suffix.lower() != ".jpg":
            continue
        found[split] += 1
        name = _NAME.fullmatch(where.name)
        if name is None or int(name[2]) not in CAMERAS:
            raise ValueError(
                f"{source}: {path} is not named like 0002_c1s1_000451_03.jpg with a camera of "
                "1 to 6: remove or rename it"
            )
        person = int(name[1])
        if person == JUNK:
            junk += 1
        else:
            rows.append((path, person, int(name[2]), split))
    for split, images in found.items():
        if not images:
            raise FileNotFoundError(
                f"{source} holds no image in a folder {FOLDERS[split]}. Expected: {EXPECTED}"
            )
    table = pd.DataFrame(rows, columns=["path", "person", "camera", "split"])
    order = {split: position for position, split in enumerate(FOLDERS)}
    table = table.sort_values(
        "split", key=lambda column: column.map(order), kind="stable", ignore_index=True
    )
    counts = _count(table, junk)
    if published and counts != PUBLISHED:
        differences = "; ".join(
            f"{name}: {counts[name]:,} instead of {number:,}"
            for name, number in PUBLISHED.items()
            if counts[name] != number
        )
        raise ValueError(
            f"{source} is not all of Market-1501 ({differences}): fetch it again, or set "
            "published to false for a subset"
        )
    return Listing(table, counts)


def _count(table: pd.DataFrame, junk: int) -> dict[str, int]:
    train, query, gallery = (table[table.split == split] for split in FOLDERS)
    return {
        "train images": len(train),
        "train identities": train.person.nunique(),
        "query images": len(query),
        "query identities": query.person.nunique(),
        "gallery images": len(gallery),
        "distractors": int((gallery.person == DISTRACTOR).sum()),
        "junk dropped": junk,
    }
