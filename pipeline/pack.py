"""The images of a prepared data set -> data/prepared/<data set>/<height>x<width>.npy.

    python -m pipeline.pack market1501 256x128

A stage for each size: another one leaves those that are there as they are.
"""

from __future__ import annotations

import argparse

import pandas as pd
from rich.progress import track

from ianet import packing
from pipeline.plan import PREPARED, TABLE
from pipeline.readers import listed
from pipeline.shell import stage


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="name in params.yaml")
    parser.add_argument("size", metavar="HEIGHTxWIDTH", help="in pixels")
    arguments = parser.parse_args()
    size = size_of(arguments.size)
    _, listing = listed(arguments.dataset)
    prepared = PREPARED / arguments.dataset
    if not (prepared / TABLE).exists():
        raise FileNotFoundError(
            f"{prepared / TABLE} does not exist: `dvc repro prepare@{arguments.dataset}` makes it"
        )
    paths = pd.read_parquet(prepared / TABLE).path.tolist()
    target = prepared / f"{arguments.size}.npy"
    packed = packing.pack(listing.open, paths, size, target)
    for _ in track(packed, f"{arguments.dataset} {arguments.size}", len(paths)):
        pass


def size_of(text: str) -> packing.Size:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"size is {text!r}: give HEIGHTxWIDTH, such as 256x128")
    return int(height), int(width)


if __name__ == "__main__":
    with stage():
        main()
