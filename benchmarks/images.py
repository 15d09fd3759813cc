"""Training from the file of packed images against training from memory.

    python benchmarks/images.py [--images 12936] [--times 1 4 16] [--steps 20] [--repeats 3]

The images are 128x64, as many as Market-1501's for training, and 4 and 16 times as many. The file
lies in the page cache. A case is a process of its own, with batches of 32:

| case | network | images of an epoch |
|---|---|---|
| speed | MobileNetV2, one thread | `--steps` batches, drawn from the whole file |
| reading | none: `ianet.reading.read` alone | all |
| memory | means of colours | all |

"anonymous" is the memory of the process beside pages of files, above that before the images, at
most. Weights from the file and from memory must be the same to the bit. Speeds are medians of the
last of two epochs, by the clock and by the time of the CPU, which other processes disturb less.
Prints three tables and writes benchmarks/images.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import re
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from machine import processor
from rich.progress import track
from torch import Tensor, nn

from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.reading import PackedImages, place_images, read
from ianet.training.batches import batches
from ianet.training.fit import fit
from ianet.training.recipe import Recipe

HEIGHT, WIDTH, BATCH, IDENTITIES = 128, 64, 32, 751
CPU = torch.device("cpu")
RECIPE = Recipe(
    height=HEIGHT,
    width=WIDTH,
    epochs=2,
    batch=BATCH,
    lr=1e-3,
    weight_decay=5e-4,
    compile="never",  # which takes memory of its own
)
FREE = {"file": 0, "memory": 2**50}  # bytes of free memory, from which `place_images` decides
RESULTS = Path("benchmarks/images.json")


class Means(nn.Module):
    """Classifies images by their mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(3, IDENTITIES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = images.mean((2, 3))
        return self.classifier(embeddings), embeddings


def anonymous() -> int:
    """Bytes that this process holds beside pages of files."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"RssAnon:\s+(\d+)", status)[0])


def train(network: nn.Module, images: PackedImages) -> dict[str, Any]:
    """Speeds of the last epoch, the most memory, and a digest of the weights."""
    labels = torch.arange(len(images)) % IDENTITIES
    before, peak, started = anonymous(), 0, time.process_time()

    def watch(epoch: int, fraction: float) -> None:
        nonlocal peak
        peak = max(peak, anonymous())

    for epoch in fit(network, images, labels, RECIPE, seed=0, device=CPU, on_batch=watch):
        seconds, computed = epoch.seconds, time.process_time() - started
        started = time.process_time()
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    return {
        "images/s": len(images) / seconds,
        "images/CPU s": len(images) / computed,
        "anonymous, MB": (peak - before) / 1e6,
        "weights": digest.hexdigest(),
    }


def measure(case: str, place: str, path: Path, steps: int) -> dict[str, Any]:
    """A case of the table above, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = PackedImages(path)
    with mock.patch("ianet.reading.free_memory", return_value=FREE[place]):
        if case == "memory":
            return train(Means(), images)
        if case == "speed":
            mask = np.zeros(len(images), dtype=bool)
            mask[np.random.default_rng(0).permutation(len(images))[: steps * BATCH]] = True
            network = Network(IDENTITIES, NetworkOptions("mobilenet_v2"))
            return train(network, PackedImages(path, mask))
        order = batches(len(images), BATCH, np.random.default_rng(0))
        placed = place_images(images, CPU, 1)
        for _ in range(2):  # the first maps the pages
            start, started = time.perf_counter(), time.process_time()
            for _ in read(placed, order):
                pass
            seconds, computed = time.perf_counter() - start, time.process_time() - started
        return {"images/s": len(images) / seconds, "images/CPU s": len(images) / computed}


def write_images(path: Path, count: int) -> None:
    """Write random images, which are then in the page cache."""
    generator = np.random.default_rng(0)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, HEIGHT, WIDTH, 3)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(count):
            file.write(generator.bytes(HEIGHT * WIDTH * 3))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=12_936)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    build = Path("build")  # /tmp may lie in memory
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        path = Path(folder) / "images.npy"
        for times in arguments.times:
            write_images(path, times * arguments.images)
            cases = [(case, place) for case in ("speed", "reading") for place in FREE]
            cases = cases * arguments.repeats + [("memory", place) for place in FREE]
            for case, place in track(cases, f"{times} times"):
                # The results of a process of its own.
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    result = pool.apply(measure, (case, place, path, arguments.steps))
                rows.append({"case": case, "times": times, "place": place, **result})
    table = pd.DataFrame(rows)
    digests = table.groupby(["case", "times"]).weights.nunique()
    if digests.max() > 1:
        raise RuntimeError(f"weights from the file are not those from memory: {digests}")
    medians = table.groupby(["case", "times", "place"]).median(numeric_only=True)
    tables = {name: medians[name].unstack() for name in medians}
    for name in ("images/s", "images/CPU s"):
        tables[name]["of memory"] = tables[name]["file"] / tables[name]["memory"]
    content: dict[str, Any] = {"machine": processor(), "images": arguments.images}
    for name, result in tables.items():
        rounded = result.dropna().round(3).reset_index()
        print(f"{name}\n\n{rounded.to_markdown(index=False, intfmt=',')}\n")
        content[name] = rounded.to_dict("records")
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
