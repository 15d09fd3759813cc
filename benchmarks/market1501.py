"""Trainings on Market-1501 to the end, and their scores, one after another, without Ray.

    python benchmarks/market1501.py --images FOLDER_OR_ZIP --weights mobilenet_v2.safetensors
    python benchmarks/market1501.py --images FOLDER_OR_ZIP --only 17 18 19 --epochs 2

For a GPU that can be had for minutes. `RUNS` has the order. Networks and recipes are those of
params.yaml. The list or `--epochs` has the epochs, with which milestones and warm-up are scaled.
Training is in bfloat16 where the device multiplies bfloat16, features are in float32. `--weights`
names ImageNet's weights of MobileNetV2.

A result is written as it comes: a line to `--output`, and the scores of each query to the Parquet
file beside it. A run that has its line is left out, so the same command goes on after an end.

Some machines take 64 MiB a call. Then `split -n 2` cuts the zip, each call copies a part to a
folder there, and `cat` joins the parts. A machine needs pydantic, too. For a further machine carry
the two files of results, which say what is done.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from device import describe_machine

from ianet import images
from ianet.datasets import market1501
from ianet.features import extract
from ianet.files import build_whole, write_whole
from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.packing import pack
from ianet.retrieval import per_query
from ianet.training.batches import labels_of
from ianet.training.fit import fit
from ianet.training.recipe import Recipe
from pipeline.config.settings import Settings, build_network, build_recipe, load


class Run(NamedTuple):
    """A training: `weights` are "imagenet" or "none", other names are of params.yaml."""

    backbone: str
    weights: str
    network: str
    recipe: str
    height: int
    width: int
    epochs: int = 60


LARGE, SMALL = (256, 128), (128, 64)
RUNS = [
    *(
        Run("mobilenet_v2", "imagenet", network, recipe, *LARGE)
        for recipe, networks in {
            "paper": ("base", "stage23", "stage23-released"),
            "strong": ("base", "stage23"),
        }.items()
        for network in networks
    ),
    *(
        Run("mobilenet_v2", "imagenet", network, recipe, *SMALL)
        for plain in ("cpu", "cpu-strong")
        for network, recipe in (
            ("base", plain),
            ("stage23", plain),
            ("stage23-released", plain),
            ("stage23-released", f"{plain}-block-lr"),
            ("stage23-released-uniform", f"{plain}-block-lr"),
            *([("squeeze-excitation", f"{plain}-block-lr")] if plain == "cpu" else []),
        )
    ),
    *(
        Run("resnet50", "none", network, "paper", *LARGE)
        for network in ("base", "stage23", "stage23-released-uniform")
    ),
]


def configure(run: Run, settings: Settings, weights: str) -> tuple[NetworkOptions, Recipe]:
    """Return the network and the recipe of a run.

    Args:
        run: whose epochs are those of the training.
        settings: of params.yaml.
        weights: of the backbone, see `ianet.backbones.build`.
    """
    entry = settings.recipes[run.recipe]
    training = entry.training
    share = run.epochs / training["epochs"]
    milestones = {max(1, round(share * each)) for each in training.get("milestones", ())}
    entry = entry.model_copy(
        update={
            "network": {**entry.network, "backbone": run.backbone, "weights": weights},
            "training": {
                **training,
                "height": run.height,
                "width": run.width,
                "epochs": run.epochs,
                "milestones": sorted(milestones),
                "warm_up": round(share * training.get("warm_up", 0)),
                "precision": "auto",
            },
        }
    )
    network = build_network(run.network, settings.networks[run.network], entry)
    return network, build_recipe(run.recipe, entry)


def score(network: Network, table: pd.DataFrame, path: Path, device: torch.device) -> pd.DataFrame:
    """Return the scores of each query that has a match, see `ianet.retrieval.per_query`."""
    arguments: dict[str, Any] = {}
    for split in ("query", "gallery"):
        mask = (table.split == split).to_numpy(copy=True)
        arguments[f"{split}_features"] = extract(network, images.load(path, mask), device=device)
        arguments[f"{split}_ids"] = table.person[mask]
        arguments[f"{split}_cameras"] = table.camera[mask]
    queries = per_query(**arguments)
    paths = table.path[table.split == "query"].iloc[queries.index]
    return queries.assign(path=paths.to_numpy())


def train(
    options: NetworkOptions, recipe: Recipe, table: pd.DataFrame, path: Path, place: str
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the result of a training with seed 0, and the scores of each query.

    Args:
        options, recipe: of the network and the training.
        table: of the images.
        path: of the packed images.
        place: of the run in the list, for the lines of progress.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    mask = (table.split == "train").to_numpy(copy=True)
    labels = labels_of(table.person[mask].to_numpy())
    start = time.perf_counter()
    torch.manual_seed(0)
    network = Network(int(labels.max()) + 1, options)
    for epoch in fit(network, images.load(path, mask), labels, recipe, seed=0, device=device):
        print(
            f"{place}, epoch {epoch.epoch} of {recipe.epochs}: loss {epoch.loss:.3f}, accuracy "
            f"{epoch.accuracy:.3f}, {epoch.images_per_second:.0f} images/s",
            flush=True,
        )
    trained = time.perf_counter()
    with torch.compiler.set_stance("force_eager"):  # as the stage evaluate does
        queries = score(network, table, path, device)
    return {
        "seconds": round(trained - start, 1),
        "scoring, s": round(time.perf_counter() - trained, 1),
        "images/s": round(epoch.images_per_second),
        "bits": epoch.bits,
        "top-1": round(100 * (queries.first_rank == 1).mean(), 2),
        "mAP": round(100 * queries.average_precision.mean(), 2),
        "machine": describe_machine(),
    }, queries


def write(output: Path, row: dict[str, Any], queries: pd.DataFrame) -> None:
    """Add a result to a file and the scores of its queries to the Parquet file beside it.

    The line comes last, as a run that has its line is done.
    """
    target = output.with_suffix(".parquet")
    parts = [queries.assign(run=row["run"])]
    if target.exists():
        before = pd.read_parquet(target)
        parts.insert(0, before[before.run != row["run"]])
    with build_whole(target) as temporary:
        pd.concat(parts).to_parquet(temporary, index=False)
    lines = output.read_text() if output.exists() else ""
    write_whole(output, f"{lines}{json.dumps(row)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = range(1, len(RUNS) + 1)
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER_OR_ZIP")
    parser.add_argument("--weights", type=Path, help="ImageNet's, of MobileNetV2")
    parser.add_argument(
        "--only", type=int, nargs="+", choices=numbers, default=numbers, metavar="N"
    )
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/market1501.jsonl"))
    arguments = parser.parse_args()
    runs = {number: RUNS[number - 1] for number in arguments.only}
    if arguments.epochs is not None:
        runs = {number: run._replace(epochs=arguments.epochs) for number, run in runs.items()}
    if arguments.weights is None and any(run.weights == "imagenet" for run in runs.values()):
        parser.error(
            "--weights: name ImageNet's weights of MobileNetV2, or choose others by --only"
        )
    settings = load()
    configurations = {
        number: configure(
            run, settings, "none" if run.weights == "none" else str(arguments.weights)
        )
        for number, run in runs.items()
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a time limit leaves no images
    listing = market1501.read(arguments.images, published=False)
    with tempfile.TemporaryDirectory() as folder:

        @cache
        def pack_images(height: int, width: int) -> Path:
            target = Path(folder, f"{height}x{width}.npy")
            paths = listing.table.path.tolist()
            print(f"packing {len(paths):,} images as {height}x{width}", flush=True)
            for _ in pack(listing.open, paths, (height, width), target):
                pass
            return target

        for number, run in runs.items():
            key = ".".join(map(str, [*run, listing.counts["train images"]]))
            place = f"run {number} of {len(RUNS)}"
            lines = arguments.output.read_text().splitlines() if arguments.output.exists() else []
            if key in {json.loads(line)["run"] for line in lines}:
                print(f"{place} is done: {key}", flush=True)
                continue
            print(f"{place}: {key}", flush=True)
            path = pack_images(run.height, run.width)
            result, queries = train(*configurations[number], listing.table, path, place)
            row = {"run": key, **run._asdict(), "identities": listing.counts["train identities"]}
            write(arguments.output, {**row, **result}, queries)
            print(f"{place}: top-1 {result['top-1']}, mAP {result['mAP']}", flush=True)


if __name__ == "__main__":
    main()
