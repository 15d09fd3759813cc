"""Speed of packing a data set, and the memory of packing and scoring as one grows.

    python benchmarks/preparation.py [market1501] [--images 4000]

Of a data set of params.yaml, or of so many of its images, evenly drawn: what the stages `prepare`
and `pack` do to it, and DVC around them, part by part: the MD5 of the source, the listing,
decoding, `ianet.packing.pack` at 256x128 and at 128x64, and the MD5 of an array. Beside them the
plain loop, open, decode, resize and stack. On one core and, but for what uses only one, on all.
"above" is memory beyond what the process took before; "of the loop" the speed in parts of the
plain loop's, by CPU seconds, which other work on the machine disturbs less.

Then the peak memory on sets of 1, 4 and 16 times the size, made up: of the whole stage `pack`,
which holds no array, and of `ianet.retrieval.evaluate` above the features, of which it makes one
copy; with the same queries, and with more of both.

Every case runs in a process of its own, three times, all in turn; each number is a median. Prints
two tables and writes benchmarks/preparation.json.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch
import yaml
from machine import processor
from PIL import Image
from rich.progress import track

from ianet import packing
from ianet.datasets.listing import Listing
from ianet.retrieval import evaluate
from pipeline.config.settings import PARAMS, check_known, load
from pipeline.data.readers import read_dataset

LARGE, SMALL = (256, 128), (128, 64)
REPEATS = 3
TIMES = (1, 4, 16)
PACKED = 2_000  # images of the smallest set, of 64x32
QUERIES, GALLERY, NUMBERS = 500, 4_000, 512  # of the smallest set
RESULTS = Path("benchmarks/preparation.json")


class Case(NamedTuple):
    dataset: str
    source: Path
    listing: Listing
    paths: list[str]  # of the images that are drawn
    folder: Path  # for what is written


def hash_source(case: Case) -> None:
    with case.source.open("rb") as source:
        hashlib.file_digest(source, "md5")


def relist(case: Case) -> None:
    read_dataset(case.dataset)


def decode_images(case: Case) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda path: case.listing.open(path).size, case.paths):
            pass


def prepare_pack(size: packing.Size) -> Callable[[Case], None]:
    def pack(case: Case) -> None:
        for _ in packing.pack(case.listing.open, case.paths, size, case.folder / "packed.npy"):
            pass

    return pack


def hash_arrays(case: Case) -> None:
    digest, image = hashlib.md5(), bytes(3 * LARGE[0] * LARGE[1])
    for _ in case.paths:
        digest.update(image)


def prepare_loop(size: packing.Size) -> Callable[[Case], None]:
    def loop(case: Case) -> None:
        height, width = size
        arrays = []
        for path in case.paths:
            image = case.listing.open(path).resize((width, height), Image.Resampling.BILINEAR)
            arrays.append(np.asarray(image))
        np.save(case.folder / "plain.npy", np.stack(arrays))

    return loop


THREADED: dict[str, Callable[[Case], None]] = {
    "decoded alone": decode_images,
    "pack, 256x128": prepare_pack(LARGE),
    "pack, 128x64": prepare_pack(SMALL),
}
ALONE: dict[str, Callable[[Case], None]] = {
    "plain loop, 256x128": prepare_loop(LARGE),
    "plain loop, 128x64": prepare_loop(SMALL),
    "source's MD5": hash_source,
    "listing": relist,
    "array's MD5, 256x128": hash_arrays,
}


def read_peak() -> int:
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_memory() -> int:
    """Bytes that this process holds."""
    return psutil.Process().memory_info().rss


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def measure_speed(dataset: str, number: int | None, way: str, on: int) -> dict[str, Any]:
    os.sched_setaffinity(0, cores()[:on])
    settings, listing = read_dataset(dataset)
    size = len(listing.table)
    rows = np.linspace(0, size - 1, min(number or size, size)).astype(int)
    paths = listing.table.path.iloc[rows].tolist()
    with tempfile.TemporaryDirectory(dir=".") as folder:  # /tmp may lie in memory
        case = Case(dataset, settings.source, listing, paths, Path(folder))
        before, start, computed = read_memory(), time.perf_counter(), time.process_time()
        {**THREADED, **ALONE}[way](case)
        computed = time.process_time() - computed
        seconds = time.perf_counter() - start
    return {
        "part": way,
        "cores": on,
        "s": seconds,
        "CPU s": computed,
        "images/s": len(paths) / seconds,
        "images/CPU s": len(paths) / computed,
        "above, MB": (read_peak() - before) / 1e6,
    }


def measure_pack(times: int) -> tuple[int, int]:
    """Bytes of the packed array, and all that the stage's process holds at most."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        with zipfile.ZipFile(folder / "made.zip", "w") as archive:
            for number in range(times * PACKED):
                coarse = generator.integers(256, size=(16, 8, 3), dtype=np.uint8)
                jpeg = io.BytesIO()
                Image.fromarray(coarse).resize((32, 64)).save(jpeg, "JPEG")
                part = ("bounding_box_train", "query", "bounding_box_test")[number % 3]
                image = f"{number // 12:05}_c{number % 6 + 1}s1_{number:06}_00.jpg"
                archive.writestr(f"{part}/{image}", jpeg.getvalue())
        params = yaml.safe_load(PARAMS.read_text())
        params["datasets"]["market1501"] |= {"source": "made.zip", "published": False}
        (folder / PARAMS).write_text(yaml.safe_dump(params))
        for stage in (["prepare", "market1501"], ["pack", "market1501", "64x32"]):
            process = subprocess.Popen(
                [sys.executable, "-m", f"pipeline.{stage[0]}", *stage[1:]],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(Path.cwd())},
                stdout=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise RuntimeError(f"the stage {stage[0]} failed: its message is above")
        (array,) = folder.glob("data/prepared/market1501/*.npy")
        return array.stat().st_size, usage.ru_maxrss * 1024


def measure_evaluate(queries: int, gallery: int) -> tuple[int, int]:
    """Bytes of the features, and what scoring holds above them at most."""
    generator = torch.Generator().manual_seed(0)
    sides = []
    for number in (queries, gallery):
        features = torch.randn(number, NUMBERS, generator=generator)
        ids = torch.randint(queries // 4, (number,), generator=generator)
        sides.append((features, ids, torch.randint(6, (number,), generator=generator)))
    before = read_memory()
    evaluate(*(side for pair in zip(*sides, strict=True) for side in pair))
    return sum(features.nbytes for features, *_ in sides), read_peak() - before


MEMORY: dict[str, Callable[[int], tuple[int, int]]] = {
    "pack, all of it": measure_pack,
    "evaluate, gallery grows": lambda times: measure_evaluate(QUERIES, times * GALLERY),
    "evaluate, both grow": lambda times: measure_evaluate(times * QUERIES, times * GALLERY),
}


def measure_memory(what: str, times: int) -> dict[str, Any]:
    data, most = MEMORY[what](times)
    return {"what": what, "times": times, "data, MB": data / 1e6, "peak, MB": most / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?", default="market1501")
    parser.add_argument("--images", type=int, help="all by default")
    arguments = parser.parse_args()
    datasets = load().datasets
    check_known(arguments.dataset, datasets, "the command", f"datasets of {PARAMS}")
    source = datasets[arguments.dataset].source
    if not source.exists():
        parser.error(f"{source} does not exist: put the data set there")
    places = [(way, on) for on in sorted({1, len(cores())}) for way in THREADED]
    places += [(way, 1) for way in ALONE]
    name, images = arguments.dataset, arguments.images
    cases: list[tuple[Any, ...]] = [(measure_speed, name, images, *at) for at in places]
    cases += [(measure_memory, what, times) for what in MEMORY for times in TIMES]
    rows: dict[Any, list[dict[str, Any]]] = {measure_speed: [], measure_memory: []}
    for measure, *of in track(cases * REPEATS, "preparation"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows[measure].append(pool.apply(measure, of))
    tables = {
        "speed": pd.DataFrame(rows[measure_speed]).groupby(["part", "cores"], sort=False).median(),
        "memory": pd.DataFrame(rows[measure_memory])
        .groupby(["what", "times"], sort=False)
        .median(),
    }
    rate = tables["speed"]["images/CPU s"]
    for size in ("256x128", "128x64"):
        ours, loop = f"pack, {size}", rate[f"plain loop, {size}", 1]
        tables["speed"].loc[ours, "of the loop"] = (rate[ours] / loop).to_numpy()
    digits = {"s": 2, "CPU s": 2, "images/s": 0, "images/CPU s": 0, "above, MB": 0}
    digits |= {"of the loop": 2, "data, MB": 1, "peak, MB": 0}
    tables = {name: table.round(digits).reset_index() for name, table in tables.items()}
    for table in tables.values():
        print(table.to_markdown(index=False, intfmt=",", floatfmt=",g"), end="\n\n")
    machine = f"{processor()}, {len(cores())} cores"
    written: dict[str, Any] = {"machine": machine, "images": arguments.images}
    for name, table in tables.items():
        written[name] = json.loads(table.to_json(orient="records"))
    RESULTS.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
