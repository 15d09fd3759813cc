"""What the use of a model costs: embedding, and exact search in memory and from disk.

    python benchmarks/serving.py [--images 512] [--repeats 3] [--only embed search disk]

Each case is a process of its own. Nothing else may run on the machine.

| case | measured |
|---|---|
| embed | `Model.embed` of JPEGs of 256x128 by ResNet-50, in turn with the bare forward passes |
| search | 3,368 queries in 15,913 images of 2,048 numbers, and `ianet.retrieval` of the same |
| disk | 1,000 queries in a Parquet file of 2,000,000 images of 256 numbers |

Seconds are medians, by the clock and by the time of the CPU. Memory is the most resident memory
above that before the case, features in memory included. torchreid's `FeatureExtractor` embeds the
same JPEGs where torchreid can be imported; benchmarks/training.py says how torchreid is installed.
Prints a table and writes benchmarks/serving.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch
from machine import peak_bytes, processor, reset_peak
from PIL import Image

import ianet
from ianet.feature_files import FeatureFile, write_features
from ianet.feature_table import FeatureTable, Identity
from ianet.features import extract_batches
from ianet.model import save_model
from ianet.network import Network, describe
from ianet.options import NetworkOptions
from ianet.retrieval import per_query
from ianet.searching import search

RESULTS = Path(__file__).with_suffix(".json")
HEIGHT, WIDTH, BATCH = 256, 128, 64
CPU = torch.device("cpu")
IDENTITY = Identity("benchmark", "0")


def measure(function: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median seconds of a call, after a first call that warms up."""
    function()
    clock, cpu = [], []
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        function()
        clock.append(time.perf_counter() - start[0])
        cpu.append(time.process_time() - start[1])
    return {"s": median(clock), "CPU s": median(cpu)}


def write_photos(folder: Path, number: int) -> list[Path]:
    """JPEGs of smooth noise, which compress as photos do."""
    generator = np.random.default_rng(0)
    paths = []
    for place in range(number):
        small = generator.integers(0, 256, (32, 16, 3), dtype=np.uint8)
        content = io.BytesIO()
        Image.fromarray(small).resize((WIDTH, HEIGHT)).save(content, "JPEG", quality=90)
        paths.append(folder / f"{place}.jpg")
        paths[-1].write_bytes(content.getvalue())
    return paths


def measure_embed(folder: Path, images: int, repeats: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    network = Network(751, NetworkOptions(backbone="resnet50")).eval()
    description = describe(network, dataset="none", height=HEIGHT, width=WIDTH)
    save_model(network, description, folder / "model", name="benchmark", terms="None.")
    model = ianet.load(folder / "model")
    paths = write_photos(folder, images)
    batches = torch.randint(256, (images, HEIGHT, WIDTH, 3), dtype=torch.uint8).split(BATCH)

    def forward() -> None:
        for _ in extract_batches(model.network, batches, device=CPU):
            pass

    cases: dict[str, Callable[[], object]] = {
        "embed: forward passes alone": forward,
        "embed: Model.embed of JPEGs": lambda: model.embed(paths, labels="none", batch=BATCH),
    }
    if importlib.util.find_spec("torchreid"):
        from torchreid.reid.utils import FeatureExtractor

        weights = folder / "weights.pth"
        torch.save({}, weights)  # without a file, ImageNet's weights would be downloaded
        extractor = FeatureExtractor(
            "resnet50", str(weights), image_size=(HEIGHT, WIDTH), device="cpu", verbose=False
        )
        names = [str(path) for path in paths]
        cases["embed: torchreid's FeatureExtractor"] = lambda: [
            extractor(names[first : first + BATCH]) for first in range(0, images, BATCH)
        ]
    return [{"case": name, **measure(case, repeats)} for name, case in cases.items()]


def draw_table(rows: int, size: int, prefix: str) -> FeatureTable:
    features = np.random.default_rng(len(prefix)).standard_normal((rows, size), dtype=np.float32)
    persons = [str(row % 750) for row in range(rows)]
    paths = [f"{prefix}{row}" for row in range(rows)]
    return FeatureTable(features, paths, persons, ["1"] * rows, IDENTITY)


def measure_search(folder: Path, images: int, repeats: int) -> list[dict[str, Any]]:
    queries, gallery = draw_table(3368, 2048, "q"), draw_table(15_913, 2048, "ga")
    ids = (np.arange(3368) % 750, np.arange(15_913) % 750)
    cameras = (np.zeros(3368, int), np.ones(15_913, int))
    features = (torch.from_numpy(queries.features), torch.from_numpy(gallery.features))
    before = reset_peak()
    rows = [
        {
            "case": "search: ianet.searching, 10 nearest",
            **measure(lambda: search(queries, gallery, 10), repeats),
        }
    ]
    rows[0]["MB"] = (peak_bytes() - before) / 2**20
    rows.append(
        {
            "case": "search: ianet.retrieval, scores",
            **measure(lambda: per_query(*features, *ids, *cameras), repeats),
        }
    )
    return rows


def measure_disk(folder: Path, images: int, repeats: int) -> list[dict[str, Any]]:
    path = folder / "gallery.parquet"
    blocks = (draw_table(100_000, 256, f"{place:03}-") for place in range(20))
    write_features(path, blocks)
    queries = draw_table(1000, 256, "q")
    before = reset_peak()
    row = {
        "case": "disk: 1,000 queries in 2,000,000",
        **measure(lambda: search(queries, FeatureFile(path), 10), 1),
    }
    return [{**row, "MB": (peak_bytes() - before) / 2**20}]


CASES = {"embed": measure_embed, "search": measure_search, "disk": measure_disk}


def run(name: str, images: int, repeats: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        return CASES[name](Path(folder), images, repeats)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=512)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    arguments = options.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.only:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows += pool.apply(run, (name, arguments.images, arguments.repeats))
    frame = pd.DataFrame(rows)
    print(frame.round(2).to_markdown(index=False))
    content = {"processor": processor(), "images": arguments.images, "rows": rows}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
