"""How hard the synthetic benchmark is: chance, colour histograms, and the trained base.

    dvc repro evaluate@synthetic-base-quick-0 && python benchmarks/synthetic.py

Prints a table and writes benchmarks/synthetic.json.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ianet.images import load
from ianet.retrieval import Scores, evaluate

PREPARED = Path("data/prepared/synthetic")
BASE = Path("results/scores/synthetic-base-quick-0.json")
STRIPES = 3


def histograms(images: NDArray[np.uint8], stripes: int) -> NDArray[np.float32]:
    """Square roots of 8 x 8 x 8 RGB histograms of horizontal stripes, (N, stripes * 512).

    Their cosine is the Bhattacharyya coefficient, the better of it and L1 on this set.
    """
    bins = (images // 32).astype(np.int64) @ np.array([64, 8, 1])
    parts = np.array_split(bins, stripes, axis=1)
    counts = [
        np.bincount(part.ravel(), minlength=512) for row in zip(*parts, strict=True) for part in row
    ]
    return np.sqrt(np.reshape(counts, (len(images), -1))).astype(np.float32)


def scored(features: NDArray[np.float32], table: pd.DataFrame) -> Scores:
    query, gallery = (table.split == "query").to_numpy(), (table.split == "gallery").to_numpy()
    person, camera = table.person.to_numpy(), table.camera.to_numpy()
    return evaluate(
        features[query], features[gallery], person[query], person[gallery],
        camera[query], camera[gallery],
    )  # fmt: skip


def main() -> None:
    table = pd.read_parquet(PREPARED / "table.parquet")
    (packed,) = PREPARED.glob("*.npy")
    images = load(packed).numpy()
    torch.manual_seed(0)
    rows = {"chance": scored(torch.randn(len(table), 64).numpy(), table)}
    for stripes in (1, STRIPES):
        name = f"colour histogram, {stripes} stripe{'s' if stripes > 1 else ''}"
        rows[name] = scored(histograms(images, stripes), table)
    found = {
        name: {"top-1": round(float(one.cmc[0]), 4), "mAP": round(one.mAP, 4)}
        for name, one in rows.items()
    }
    base = json.loads(BASE.read_text())
    found["trained base"] = {"top-1": round(base["top-1"], 4), "mAP": round(base["mAP"], 4)}
    print((100 * pd.DataFrame(found).T).round(1).to_markdown())
    Path("benchmarks/synthetic.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
