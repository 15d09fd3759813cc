"""A data set -> data/prepared/<data set>: table.parquet, one packed array a size, and
dataset.json (how it is scored, counts).

python -m pipeline.prepare market1501 256x128
"""

from __future__ import annotations

import argparse
import json
import shutil

import numpy as np
import pandas as pd
from rich.progress import track

from ianet import packing
from ianet.datasets.listing import split_columns
from pipeline.parts import held_out_of
from pipeline.plan import DESCRIPTION, PREPARED, TABLE
from pipeline.readers import read
from pipeline.settings import PARAMS, check_known, load
from pipeline.shell import stage


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
    parser = argparse.ArgumentParser(prog="python -m pipeline.prepare", description=__doc__)
    parser.add_argument("dataset", help="name in params.yaml")
    parser.add_argument("sizes", nargs="+", metavar="HEIGHTxWIDTH", help="in pixels")
    arguments = parser.parse_args()
    sizes = {text: size_of(text) for text in arguments.sizes}
    datasets = load().datasets
    check_known(arguments.dataset, datasets, "the command", f"datasets of {PARAMS}")
    settings = datasets[arguments.dataset]
    listing = read(
        settings.reader,
        settings.source,
        {**settings.options, "published": settings.published},
        f"{PARAMS}: datasets.{arguments.dataset}.options",
    )
    counts = ", ".join(f"{n:,} {what}" for what, n in listing.counts.items())
    print(f"{arguments.dataset}: {counts}")
    table = listing.table.assign(
        person=numbered(listing.table.person), camera=numbered(listing.table.camera)
    )
    for split in split_columns(table):
        chosen = held_out(table.assign(split=table[split]), settings.held_out)
        table[held_out_of(split)] = chosen

    target = PREPARED / arguments.dataset
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        targets = {size: part / f"{text}.npy" for text, size in sizes.items()}
        packed = packing.pack(listing.open, table.path.tolist(), targets)
        for _ in track(packed, f"{arguments.dataset} {' '.join(arguments.sizes)}", len(table)):
            pass
        table.to_parquet(part / TABLE, index=False)
        description = {"scoring": listing.scoring, "counts": listing.counts}
        (part / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def numbered(labels: pd.Series) -> pd.Series:
    """Persons or cameras as integers: text is numbered from 1 in its own order."""
    if pd.api.types.is_integer_dtype(labels):
        return labels
    return pd.Series(np.unique(labels.to_numpy(str), return_inverse=True)[1] + 1, labels.index)


def size_of(text: str) -> packing.Size:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"size is {text!r}: give HEIGHTxWIDTH, such as 256x128")
    return int(height), int(width)


if __name__ == "__main__":
    with stage():
        main()
