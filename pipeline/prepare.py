"""A data set -> data/prepared/<data set>: table.parquet, one packed array a size, counts.

python -m pipeline.prepare market1501 256x128
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil

import numpy as np
import pandas as pd
from rich.progress import track

from ianet import images
from ianet.datasets.source import open_source
from pipeline.plan import PREPARED
from pipeline.settings import load
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
    settings = load().datasets[arguments.dataset]
    reader = importlib.import_module(f"ianet.datasets.{settings.reader}")
    table, counts = reader.read(settings.source, published=settings.published)
    print(f"{arguments.dataset}: " + ", ".join(f"{n:,} {what}" for what, n in counts.items()))
    table["held_out"] = held_out(table, settings.held_out)

    target = PREPARED / arguments.dataset
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        files = open_source(settings.source, arguments.dataset)
        targets = {size_of(size): part / f"{size}.npy" for size in arguments.sizes}
        packing = images.pack(files, table.path.tolist(), targets)
        for _ in track(packing, f"{arguments.dataset} {' '.join(arguments.sizes)}", len(table)):
            pass
        table.to_parquet(part / "table.parquet", index=False)
        (part / "counts.json").write_text(json.dumps(counts, indent=2) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def size_of(text: str) -> images.Size:
    height, _, width = text.partition("x")
    return int(height), int(width)


if __name__ == "__main__":
    with stage():
        main()
