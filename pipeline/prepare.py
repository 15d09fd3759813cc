"""A data set -> data/prepared/<data set>: table.parquet, a row an image, and dataset.json (how it
is scored, counts).

    python -m pipeline.prepare market1501
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import pandas as pd

from ianet.datasets.listing import split_columns
from pipeline.parts import held_out_of
from pipeline.plan import DESCRIPTION, PREPARED, TABLE
from pipeline.readers import listed
from pipeline.shell import stage, write_whole


def held_out(table: pd.DataFrame, identities: int) -> pd.Series:
    """The part of each image in a validation set of training identities.

    The identities are drawn with a fixed seed. As in Market-1501, one image for each identity
    and camera is a query, all others are the gallery.

    Returns:
        For each row "query", "gallery", or "" for what is not held out.

    Raises:
        ValueError: not more training identities than should be held out.
    """
    train = table[table.split == "train"]
    persons = np.sort(train.person.unique())
    if identities >= len(persons):
        raise ValueError(
            f"held_out is {identities}, but there are only {len(persons)} training identities"
        )
    chosen = np.random.default_rng(0).choice(persons, identities, replace=False)
    part = pd.Series("", index=table.index)
    out = train[train.person.isin(chosen)]
    part[out.index] = "gallery"
    part[out.groupby(["person", "camera"]).head(1).index] = "query"
    return part


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="name in params.yaml")
    dataset = parser.parse_args().dataset
    settings, listing = listed(dataset)
    counts = ", ".join(f"{n:,} {what}" for what, n in listing.counts.items())
    print(f"{dataset}: {counts}")
    table = listing.table.assign(
        person=numbered(listing.table.person), camera=numbered(listing.table.camera)
    )
    for split in split_columns(table):
        chosen = held_out(table.assign(split=table[split]), settings.held_out)
        table[held_out_of(split)] = chosen
    target = PREPARED / dataset
    write_whole(target / TABLE, table.to_parquet(index=False))
    description = {"scoring": listing.scoring, "counts": listing.counts}
    write_whole(target / DESCRIPTION, json.dumps(description, indent=2) + "\n")


def numbered(labels: pd.Series) -> pd.Series:
    """Persons or cameras as integers: text is numbered from 1 in its own order."""
    if pd.api.types.is_integer_dtype(labels):
        return labels
    return pd.Series(np.unique(labels.to_numpy(str), return_inverse=True)[1] + 1, labels.index)


if __name__ == "__main__":
    with stage():
        main()
