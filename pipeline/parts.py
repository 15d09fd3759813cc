"""What an image of a prepared table is for in a run: its seed's split, and what is held out.

A data set with several published splits, such as CUHK03's 20, has a column for each: the mean and
spread over seeds are then those over splits.
"""

from __future__ import annotations

import pandas as pd

from ianet.datasets.listing import split_columns

HELD_OUT = "held_out"


def split_of(table: pd.DataFrame, seed: int) -> str:
    """Name of the column that holds the split of a seed: seed s has split s modulo their number."""
    columns = split_columns(table)
    return columns[seed % len(columns)]


def held_out_of(split: str) -> str:
    """Name of the column beside a split's that says what of it is held out."""
    return split.replace("split", HELD_OUT)


def part_of(table: pd.DataFrame, seed: int, *, hold_out: bool) -> pd.Series:
    """What each image is for in a run.

    Args:
        table: of a prepared data set.
        seed: of the run.
        hold_out: whether training leaves out the held-out identities, which are then the
            query and gallery in place of test.

    Returns:
        "train", "query", "gallery", or "" for what the run does not use.
    """
    split = split_of(table, seed)
    if not hold_out:
        return table[split]
    train = table[split].where(table[split] == "train", "")
    held_out = table[held_out_of(split)]
    return held_out.where(held_out != "", train)
