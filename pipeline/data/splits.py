"""The part that each image of a prepared table has in a run: the split of its seed, or held out.

A data set with several published splits, such as CUHK03's 20, has a column for each. The mean and
spread over seeds are then those over splits.
"""

from __future__ import annotations

import pandas as pd

from ianet.datasets.listing import split_columns

HELD_OUT = "held_out"


def split_column(table: pd.DataFrame, seed: int) -> str:
    """Name of the column that holds the split of a seed: seed s has split s modulo their number."""
    columns = split_columns(table)
    return columns[seed % len(columns)]


def held_out_column(split: str) -> str:
    """Name of the column that says what of a split is held out."""
    return split.replace("split", HELD_OUT)


def split_of_run(table: pd.DataFrame, seed: int, *, hold_out: bool) -> pd.Series:
    """The part of each image in a run.

    Args:
        table: of a prepared data set.
        seed: of the run.
        hold_out: whether training leaves out the held-out identities, which are then the
            query and gallery in place of test.

    Returns:
        "train", "query", "gallery", or "" for images that the run does not use.
    """
    split = split_column(table, seed)
    if not hold_out:
        return table[split]
    train = table[split].where(table[split] == "train", "")
    held_out = table[held_out_column(split)]
    return held_out.where(held_out != "", train)
