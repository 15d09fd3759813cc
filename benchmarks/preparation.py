"""Speed of packing a data set, and the memory of packing and scoring as one grows.

    python benchmarks/preparation.py [data/Market-1501-v15.09.15.zip]

Of all images of the source, which is Market-1501 in any form that `market1501` reads: decoded and
nothing else, as `prepare` reads them; packed by `ianet.images.pack`, as `prepare` does, at 256x128,
at 128x64 and at both; and the plain loop, decode, resize and stack, on one core. Then the peak
memory of `pack` and of `ianet.retrieval.evaluate` on sets of 1, 4 and 16 times the size, made up:
"above" is what exceeds the packed array, or the features.

Every case runs in a process of its own; seconds are of one run, at least 10 s long. Prints two
tables and writes benchmarks/preparation.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from rich.progress import track

from ianet import images
from ianet.datasets import market1501
from ianet.datasets.listing import Listing
from ianet.retrieval import evaluate

SIZES = [(256, 128), (128, 64)]
TIMES = (1, 4, 16)
PACKED = 8_000  # images of the smallest set, of 64x32
QUERIES, GALLERY, NUMBERS = 1_000, 8_000, 256  # of the smallest set; the queries stay
RESULTS = Path("benchmarks/preparation.json")


def decoded(listing: Listing, folder: Path) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda path: listing.open(path).size, listing.table.path):
            pass


def packed(*sizes: images.Size) -> Callable[[Listing, Path], None]:
    def pack(listing: Listing, folder: Path) -> None:
        targets = {size: folder / f"{size[0]}.npy" for size in sizes}
        for _ in images.pack(listing.open, listing.table.path.tolist(), targets):
            pass

    return pack


def plain_loop(listing: Listing, folder: Path) -> None:
    height, width = SIZES[0]
    found = []
    for path in listing.table.path:
        image = listing.open(path).resize((width, height), Image.Resampling.BILINEAR)
        found.append(np.asarray(image))
    np.save(folder / "plain.npy", np.stack(found))


WAYS: dict[str, Callable[[Listing, Path], None]] = {
    "decoded alone": decoded,
    "pack, 256x128": packed(SIZES[0]),
    "pack, 128x64": packed(SIZES[1]),
    "pack, both": packed(*SIZES),
    "plain loop, 256x128": plain_loop,
}


def peak() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def speed(source: Path, way: str) -> dict[str, Any]:
    listing = market1501.read(source, published=False)
    before = peak()
    with tempfile.TemporaryDirectory(dir=".") as folder:  # /tmp may lie in memory
        started = time.perf_counter()
        WAYS[way](listing, Path(folder))
        seconds = time.perf_counter() - started
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
    return {
        "way": way,
        "images/s": round(len(listing.table) / seconds),
        "array, GB": round(written / 1e9, 2),
        "above, GB": round((peak() - before - written) / 1e9, 2),
    }


def memory_of_pack(times: int) -> dict[str, Any]:
    picture = Image.fromarray(np.zeros((128, 64, 3), np.uint8))
    number, size = times * PACKED, (64, 32)
    before = peak()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        target = Path(folder) / "packed.npy"
        for _ in images.pack(lambda _: picture, [""] * number, {size: target}):
            pass
        written = target.stat().st_size
    return {"data, GB": written / 1e9, "above, GB": (peak() - before - written) / 1e9}


def memory_of_evaluate(times: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    sides = []
    for number in (QUERIES, times * GALLERY):
        features = torch.randn(number, NUMBERS, generator=generator)
        ids = torch.randint(number // 10, (number,), generator=generator)
        sides.append((features, ids, torch.randint(6, (number,), generator=generator)))
    before = peak()
    evaluate(*(side for pair in zip(*sides, strict=True) for side in pair))
    held = sum(features.nbytes for features, *_ in sides)
    return {"data, GB": held / 1e9, "above, GB": (peak() - before) / 1e9}


MEMORY = {"pack": memory_of_pack, "evaluate": memory_of_evaluate}


def memory(what: str, times: int) -> dict[str, Any]:
    found = MEMORY[what](times)
    return {"what": what, "times": times, **{name: round(gb, 3) for name, gb in found.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("data/Market-1501-v15.09.15.zip")
    parser.add_argument("source", nargs="?", type=Path, default=default)
    source = parser.parse_args().source
    if not source.exists():
        parser.error(f"{source} does not exist: name Market-1501's zip or its folder")
    cases = [(speed, source, way) for way in WAYS]
    cases += [(memory, what, times) for what in MEMORY for times in TIMES]
    found: dict[Any, list[dict[str, Any]]] = {speed: [], memory: []}
    for measure, *arguments in track(cases, "preparation"):
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            found[measure].append(alone.apply(measure, arguments))
    for rows in found.values():
        print(pd.DataFrame(rows).to_markdown(index=False), end="\n\n")
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    written = {"machine": machine, "speed": found[speed], "memory": found[memory]}
    RESULTS.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
