"""What each Ray worker of a training does."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import ray.train
import ray.train.torch
import torch

from ianet import images
from ianet.network import Network, NetworkOptions
from ianet.training import Recipe, fit, labels_of
from pipeline.parts import part_of
from pipeline.scoring import scored

REPORT = ("epoch", "loss", "triplet", "accuracy", "lr", "seconds", "images_per_second", "bits")


def train_on_worker(config: dict[str, Any]) -> None:
    """Train, and report each epoch with a checkpoint. `config`: see `driver.trainer`."""
    torch.set_num_threads(config["threads"])
    table_file, size = Path(config["table"]), Path(config["images"]).stem
    table = pd.read_parquet(table_file)
    part = part_of(table, config["seed"], hold_out=config["hold_out"])
    mask = (part == "train").to_numpy(copy=True)
    labels = labels_of(table.person[mask].to_numpy())
    torch.manual_seed(config["seed"])
    network = Network(int(labels.max()) + 1, NetworkOptions(**config["network"]))
    history: list[dict[str, float]] = []
    state = None
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            saved = torch.load(Path(folder) / "state.pt", weights_only=True)
        state, history = saved["state"], saved["history"]
    first = ray.train.get_context().get_world_rank() == 0
    device = ray.train.torch.get_device()
    batches = Path(config["batches"])
    told = 0.0

    def on_batch(epoch: int, done: float) -> None:
        nonlocal told
        if first and time.monotonic() - told > 1:
            told = time.monotonic()
            written = batches.with_suffix(".part")
            written.write_text(json.dumps({"epoch": epoch, "done": done}))
            written.replace(batches)

    for epoch in fit(
        network,
        images.load(Path(config["images"]), mask),
        labels,
        Recipe(**config["training"]),
        seed=config["seed"],
        device=device,
        state=state,
        on_batch=on_batch,
    ):
        report = {name: getattr(epoch, name) for name in REPORT}
        if first and config["score"]:
            scores = scored(network, table_file.parent, size, part, device).summary()
            report |= {name: value for name, value in scores.items() if value is not None}
        history.append(report)
        if not first:
            ray.train.report(report)
            continue
        # Before the checkpoint: a training that has its last one has told its last epoch.
        with Path(config["progress"]).open("a") as progress:
            progress.write(json.dumps(report) + "\n")
        with tempfile.TemporaryDirectory() as folder:
            torch.save({"state": epoch.state, "history": history}, Path(folder) / "state.pt")
            ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(folder))
