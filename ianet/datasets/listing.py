"""What every reader of a data set returns, and what readers share.

A reader is a module of this folder, named as `reader` in params.yaml, with

    read(source, *, published, ...) -> Listing      further keywords are its `options` there
    fits(paths) -> bool                             whether files of these paths are in its layout;
                                                    without it `pipeline.validate` cannot guess it
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ianet.datasets.source import Opener

SPLITS = ("train", "query", "gallery")
JUNK = -1
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class Listing(NamedTuple):
    """What a reader found.

    Attributes:
        table: one row an image: path (within the source), person and camera (integers or text)
            and split, one of `SPLITS`. A set with several published splits has a column for
            each, split_0, split_1, ..., with "" for what a split leaves out.
        counts: what was found, by name.
        open: decodes the image of a path; threads may call it at once. ValueError names an
            image that cannot be decoded.
        scoring: "ranking" (`ianet.retrieval`) or "single_shot" (`ianet.single_shot`), by the
            set's own protocol.
    """

    table: pd.DataFrame
    counts: dict[str, int]
    open: Opener
    scoring: str = "ranking"


def split_columns(table: pd.DataFrame) -> list[str]:
    """Names of the columns that hold the splits, in order: ["split"] for most sets."""
    return [column for column in table.columns if column == "split" or column.startswith("split_")]


def ordered(rows: Iterable[tuple[str, int | str, int | str, str]]) -> pd.DataFrame:
    """Rows of path, person, camera and split as a table, sorted by split, then by path."""
    table = pd.DataFrame(list(rows), columns=["path", "person", "camera", "split"])
    table = table.sort_values("path", ignore_index=True)
    return table.sort_values(
        "split", key=lambda split: split.map(SPLITS.index), kind="stable", ignore_index=True
    )


def counted(table: pd.DataFrame) -> dict[str, int]:
    """Images and identities of each part of a table with one split."""
    counts = {}
    for split in SPLITS:
        own = table[table.split == split]
        counts[f"{split} images"] = len(own)
        counts[f"{split} identities"] = own.person.nunique()
    return counts


def check_counts(
    source: Path, name: str, counts: Mapping[str, int], published: Mapping[str, int]
) -> None:
    """ValueError unless the counts are the published ones of the data set called `name`."""
    differences = "; ".join(
        f"{what}: {counts[what]:,} instead of {number:,}"
        for what, number in published.items()
        if counts[what] != number
    )
    if differences:
        raise ValueError(
            f"{source} is not all of {name} ({differences}): fetch it again, or set published to "
            "false for a subset"
        )


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """ValueError unless an option of a reader has one of its values."""
    if value not in choices:
        raise ValueError(f"{option} is {value!r}: choose {' or '.join(choices)}")
