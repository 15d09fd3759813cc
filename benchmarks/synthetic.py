"""What the synthetic benchmark asks of a network: its difficulty, poses, and scales.

    make repro && python benchmarks/synthetic.py

The first table has scores of chance, of colour histograms, of the backbone that all runs start
from, and of base. The second table compares portraits, by networks of three seeds. A changed
portrait shows the same person in another pose or at another scale. Another person is confused with
the same person if the other person's unchanged portrait is more similar than the changed one. A
relation that adapts to pose and scale would lower the rate of confusion. Prints both tables and
writes benchmarks/synthetic.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from machine import processor
from numpy.typing import NDArray

import ianet
from ianet.features import extract
from ianet.images import load
from ianet.retrieval import Scores, evaluate
from ianet.synthetic.portrait import portrait

PREPARED = Path("data/prepared/synthetic")
START = Path("models/pretraining.resnet18.pretrain.0")
NETWORKS, SEEDS = ("base", "stage3", "stage23"), (0, 1, 2)
STRIPES = 3
PEOPLE, CAMERA = 150, 1
UNCHANGED = {"facing": 0.3, "stride": 0.1, "phase": 0.0, "stature": 0.92}
CHANGES: dict[str, dict[str, float]] = {
    "seen from the side": {"facing": 0.3 + np.pi / 2},
    "seen from behind": {"facing": 0.3 + np.pi},
    "in stride": {"stride": 0.55, "phase": np.pi / 2},
    "smaller by a third": {"stature": 0.62},
    "larger by a third": {"stature": 1.22},
}
CPU = torch.device("cpu")


def count_colours(images: NDArray[np.uint8], stripes: int) -> NDArray[np.float32]:
    """Square roots of 8 x 8 x 8 RGB histograms of horizontal stripes, (N, stripes * 512).

    Their cosine is the Bhattacharyya coefficient, the better of it and L1 on this set.
    """
    bins = (images // 32).astype(np.int64) @ np.array([64, 8, 1])
    parts = np.array_split(bins, stripes, axis=1)
    counts = [
        np.bincount(part.ravel(), minlength=512) for row in zip(*parts, strict=True) for part in row
    ]
    return np.sqrt(np.reshape(counts, (len(images), -1))).astype(np.float32)


def score(features: NDArray[np.float32], table: pd.DataFrame) -> Scores:
    query, gallery = (table.split == "query").to_numpy(), (table.split == "gallery").to_numpy()
    person, camera = table.person.to_numpy(), table.camera.to_numpy()
    return evaluate(
        features[query], features[gallery], person[query], person[gallery],
        camera[query], camera[gallery],
    )  # fmt: skip


def measure_difficulty() -> dict[str, dict[str, float]]:
    """Top-1 and mAP by what the features are."""
    table = pd.read_parquet(PREPARED / "table.parquet")
    images = load(PREPARED / "128x64.npy")
    torch.manual_seed(0)
    features = {"chance": torch.randn(len(table), 64).numpy()}
    for stripes in (1, STRIPES):
        name = f"colour histogram, {stripes} stripe{'s' if stripes > 1 else ''}"
        features[name] = count_colours(images.numpy(), stripes)
    for name, folder in {
        "the backbone that runs start from": START,
        "base., seed 0": Path("models/synthetic.base.quick.0"),
    }.items():
        features[name] = extract(ianet.load(folder).network, images, device=CPU).numpy()
    scores = {name: score(values, table) for name, values in features.items()}
    return {
        name: {"top-1": round(float(each.cmc[0]), 4), "mAP": round(float(each.mAP), 4)}
        for name, each in scores.items()
    }


def draw(change: dict[str, float]) -> NDArray[np.uint8]:
    """The portraits of all people under a change."""
    options: dict[str, Any] = UNCHANGED | change
    return np.stack(
        [
            portrait(person, camera=CAMERA, height=128, width=64, seed=0, **options)[0]
            for person in range(PEOPLE)
        ]
    )


def measure_changes() -> dict[str, dict[str, dict[str, float]]]:
    """By change and network: similarities, and the rate of confusion; means over the seeds."""
    portraits = {name: draw(change) for name, change in {"none": {}, **CHANGES}.items()}
    rows: dict[str, dict[str, dict[str, float]]] = {name: {} for name in CHANGES}
    for network in NETWORKS:
        models = [ianet.load(f"models/synthetic.{network}.quick.{seed}") for seed in SEEDS]
        values: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CHANGES}
        for model in models:
            features = {
                name: torch.nn.functional.normalize(
                    extract(model.network, torch.from_numpy(images), device=CPU)
                )
                for name, images in portraits.items()
            }
            others = (features["none"] @ features["none"].T)[~torch.eye(PEOPLE, dtype=torch.bool)]
            others = others.view(PEOPLE, PEOPLE - 1)
            for name in CHANGES:
                same = (features["none"] * features[name]).sum(1)
                confused = (others >= same[:, None]).double().mean()
                values[name].append((float(same.mean()), float(others.mean()), float(confused)))
        for name, samples in values.items():
            same, other, confused = np.mean(samples, axis=0)
            rows[name][network] = {
                "same person": round(same, 4),
                "other people": round(other, 4),
                "confused": round(confused, 5),
                "confused, standard deviation": round(np.std([c for *_, c in samples], ddof=1), 5),
            }
    return rows


def main() -> None:
    difficulty, changes = measure_difficulty(), measure_changes()
    print((100 * pd.DataFrame(difficulty).T).round(1).to_markdown())
    flat = {
        (change, network): values
        for change, row in changes.items()
        for network, values in row.items()
    }
    print(pd.DataFrame(flat).T.to_markdown())
    content = {
        "machine": processor(),
        "torch": torch.__version__,
        "difficulty": difficulty,
        "changes": changes,
    }
    Path("benchmarks/synthetic.json").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
