"""Seconds of an epoch of `ianet.training.batches.identity_batches`, as a set grows.

    python benchmarks/batches.py

Batches of 16 identities with 4 images each, of sets with 20 images an identity. The plain way draws
a clock for each identity in each batch, which takes N^2; sets above 100,000 images leave it out.
Each number is the median of three. Prints a table and writes benchmarks/batches.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from machine import processor
from numpy.typing import NDArray
from rich.progress import track

from ianet.training.batches import identity_batches

IMAGES = (12_936, 100_000, 1_000_000, 4_000_000)
IMAGES_OF_IDENTITY = 20
BATCH, K = 64, 4
MOST = 100_000  # images of the plain way
REPEATS = 3
RESULTS = Path("benchmarks/batches.json")

Way = Callable[[NDArray[np.integer], int, int, np.random.Generator], list[NDArray[np.int64]]]


def race_in_each_batch(
    labels: NDArray[np.integer], batch: int, k: int, generator: np.random.Generator
) -> list[NDArray[np.int64]]:
    """The same law as of `identity_batches`, without what the batches share."""
    identities, sizes = np.unique(labels, return_counts=True)
    orders = [generator.permutation(np.flatnonzero(labels == identity)) for identity in identities]
    counts = np.zeros_like(sizes)
    epoch = []
    for _ in range(-(-len(labels) // batch)):
        remaining = np.maximum(sizes - counts, 1e-9)
        winners = np.argsort(generator.exponential(1 / remaining))[: batch // k]
        places = counts[winners, None] + np.arange(k)
        rows = [
            orders[winner].take(place, mode="wrap")
            for winner, place in zip(winners, places, strict=True)
        ]
        epoch.append(np.concatenate(rows))
        counts[winners] += k
    return epoch


def measure(way: Way, images: int) -> dict[str, float]:
    """Seconds of an epoch, and seconds of the CPU, which other processes hardly disturb."""
    generator = np.random.default_rng(0)
    labels = generator.integers(images // IMAGES_OF_IDENTITY, size=images)
    start, computed = time.perf_counter(), time.process_time()
    way(labels, BATCH, K, generator)
    return {
        "seconds": time.perf_counter() - start,
        "CPU seconds": time.process_time() - computed,
    }


def main() -> None:
    cases: list[tuple[str, Way, int]] = [("ours", identity_batches, images) for images in IMAGES]
    cases += [("plain", race_in_each_batch, images) for images in IMAGES if images <= MOST]
    epochs = [
        {"images": images, "way": name, **measure(way, images)}
        for name, way, images in track(cases * REPEATS, "batches")
    ]
    table = pd.DataFrame(epochs).groupby(["way", "images"]).median().round(3).reset_index()
    print(table.to_markdown(index=False, intfmt=","))
    content = {"machine": processor(), "epochs": table.to_dict("records")}
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
