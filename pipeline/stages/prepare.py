"""A data set -> data/prepared/<data set>: table.parquet and dataset.json.

    python -m pipeline.stages.prepare market1501

The table has a row for each image. The description holds the protocol and the counts.
"""

from __future__ import annotations

import json
import logging

import numpy as np
import pandas as pd

from ianet.datasets.listing import split_columns
from ianet.files import write_whole
from pipeline.data.readers import read_dataset
from pipeline.data.scorable import advise, has_match
from pipeline.data.splits import held_out_column
from pipeline.plan.runs import DESCRIPTION, PREPARED, TABLE
from pipeline.shell import command, parser

log = logging.getLogger("pipeline.prepare")


def hold_out(table: pd.DataFrame, identities: int) -> pd.Series:
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
    if identities and identities >= len(persons):
        raise ValueError(
            f"held_out is {identities}, but there are only {len(persons)} training identities"
        )
    sample = np.random.default_rng(0).choice(persons, identities, replace=False)
    part = pd.Series("", index=table.index)
    out = train[train.person.isin(sample)]
    part[out.index] = "gallery"
    part[out.groupby(["person", "camera"]).head(1).index] = "query"
    return part


def number(labels: pd.Series) -> pd.Series:
    """Persons or cameras as integers: text is numbered from 1 in its own order."""
    if pd.api.types.is_integer_dtype(labels):
        return labels
    return pd.Series(np.unique(labels.to_numpy(str), return_inverse=True)[1] + 1, labels.index)


def main() -> None:
    options = parser(__doc__, "pipeline.stages.prepare")
    options.add_argument("dataset", help="name in params.yaml")
    dataset = options.parse_args().dataset
    settings, listing = read_dataset(dataset)
    counts = ", ".join(f"{n:,} {what}" for what, n in listing.counts.items())
    print(f"{dataset}: {counts}")
    table = listing.table.assign(
        person=number(listing.table.person), camera=number(listing.table.camera)
    )
    for split in split_columns(table):
        part = hold_out(table.assign(split=table[split]), settings.held_out)
        table[held_out_column(split)] = part
        if settings.held_out and not has_match(table, part, cameras=settings.cameras):
            log.warning("%s", advise(dataset, settings.held_out))
    target = PREPARED / dataset
    write_whole(target / TABLE, table.to_parquet(index=False))
    description = {
        "scoring": listing.scoring, "cameras": settings.cameras, "counts": listing.counts,
    }  # fmt: skip
    write_whole(target / DESCRIPTION, json.dumps(description, indent=2) + "\n")


if __name__ == "__main__":
    command(main)
