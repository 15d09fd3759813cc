"""A whole training on Market-1501 by the paper's recipe, and its scores, without Ray.

    python benchmarks/market1501.py SOURCE [--network IANet] [--batch 32] [--epochs 60] [--seed 0]

SOURCE is the data set's zip or folder. ResNet-50 from random weights, as ImageNet's cannot be had
everywhere; all else is the recipe `paper` of params.yaml, in mixed precision where the device
multiplies bfloat16. Features are extracted in float32 and, to see what that changes, in bfloat16.
Adds a line to benchmarks/market1501.json, or market1501-gpu.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from device import describe_machine, results
from rich.progress import track
from training import NETWORKS

from ianet import images, packing
from ianet.datasets import market1501
from ianet.features import extract
from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.retrieval import evaluate
from ianet.training.batches import labels_of
from ianet.training.fit import fit
from ianet.training.recipe import Recipe


def pack_images(source: Path, recipe: Recipe, folder: Path) -> tuple[pd.DataFrame, Path]:
    """The table of the images, and they themselves."""
    listing = market1501.read(source)
    paths = listing.table.path.tolist()
    target = folder / "images.npy"
    progress = packing.pack(listing.open, paths, (recipe.height, recipe.width), target)
    for _ in track(progress, "packing", len(paths)):
        pass
    return listing.table, target


def score(
    network: Network, table: pd.DataFrame, path: Path, device: torch.device, *, mixed: bool
) -> dict[str, float]:
    """Top-1 and mAP, in percent, of features that are extracted in bfloat16 where `mixed`."""
    sides: list[Any] = []
    for split in ("query", "gallery"):
        mask = (table.split == split).to_numpy(copy=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            features = extract(network, images.load(path, mask), device=device)
        sides.append([features, table.person[mask], table.camera[mask]])
    result = evaluate(*(part for pair in zip(*sides, strict=True) for part in pair))
    return {"top-1": round(100 * result.cmc[0], 2), "mAP": round(100 * result.mAP, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--network", choices=list(NETWORKS), default="IANet")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("batch", "epochs"):
        parser.add_argument(f"--{name}", type=int)
    arguments = parser.parse_args()
    training = yaml.safe_load(Path("params.yaml").read_text())["recipes"]["paper"]["training"]
    values = {name: getattr(arguments, name) for name in ("batch", "epochs")}
    changes = {name: number for name, number in values.items() if number is not None}
    milestones = [each for each in training["milestones"] if each < changes.get("epochs", each + 1)]
    recipe = Recipe(**{**training, "milestones": milestones, "precision": "auto", **changes})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        table, path = pack_images(arguments.source, recipe, Path(folder))
        row: dict[str, Any] = {
            "machine": describe_machine(),
            "network": arguments.network,
            "batch": recipe.batch,
            "epochs": recipe.epochs,
            "seed": arguments.seed,
            "packing, s": round(time.perf_counter() - start, 1),
        }
        mask = (table.split == "train").to_numpy(copy=True)
        torch.manual_seed(arguments.seed)
        labels = labels_of(table.person[mask].to_numpy())
        network = Network(int(labels.max()) + 1, NetworkOptions(**NETWORKS[arguments.network]))
        start = time.perf_counter()
        epochs = fit(
            network, images.load(path, mask), labels, recipe, seed=arguments.seed, device=device
        )
        for epoch in epochs:
            report = f"loss {epoch.loss:.3f}, accuracy {epoch.accuracy:.3f}"
            print(
                f"epoch {epoch.epoch}: {report}, {epoch.images_per_second:.0f} images/s", flush=True
            )
        row["training, s"] = round(time.perf_counter() - start, 1)
        row["images/s, last epoch"] = round(epoch.images_per_second)
        for name, mixed in (("float32", False), ("bfloat16", True)):
            start = time.perf_counter()
            with torch.compiler.set_stance("force_eager"):  # as the stage evaluate does
                row[name] = score(network, table, path, device, mixed=mixed)
            row[f"scoring in {name}, s"] = round(time.perf_counter() - start, 1)
    target = results("market1501")
    rows = json.loads(target.read_text()) if target.exists() else []
    target.write_text(json.dumps([*rows, row], indent=2) + "\n")
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
