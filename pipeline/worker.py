"""What each Ray worker of a training does."""

from __future__ import annotations

import io
import json
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.storage import TRAINING, Storage

PROGRESS, BATCHES = "progress.json", "batches.json"  # what the first worker tells
TELLING = 2  # seconds from one telling to the next within an epoch
REPORT = ("epoch", "loss", "triplet", "accuracy", "lr", "seconds", "images_per_second", "bits")


def train_on_worker(config: dict[str, Any]) -> None:
    """Train, and report each epoch with a checkpoint. `config`: see `driver.trainer`."""
    # Ray's controller imports this file, too, before there is a worker: it need not wait for these.
    import pandas as pd
    import ray.train.torch
    import torch

    from ianet import images
    from ianet.network import Network, NetworkOptions
    from ianet.training import Recipe, fit, labels_of
    from pipeline.parts import part_of
    from pipeline.plan import TABLE
    from pipeline.scoring import scored

    torch.set_num_threads(config["threads"])
    torch.set_flush_denormal(True)  # see docs/performance.md
    storage, name = Storage(config["storage"]), config["name"]
    prepared, size = storage.fetched(config["prepared"]), config["size"]
    table = pd.read_parquet(prepared / TABLE)
    part = part_of(table, config["seed"], hold_out=config["hold_out"])
    mask = (part == "train").to_numpy(copy=True)
    labels = labels_of(table.person[mask].to_numpy())
    torch.manual_seed(config["seed"])
    network = Network(int(labels.max()) + 1, NetworkOptions(**config["network"]))
    if ray.train.get_context().get_world_size() == 1:  # as measured: several were not tried
        network.compile_blocks()
    history: list[dict[str, float]] = []
    state = None
    checkpoint = ray.train.get_checkpoint()
    if checkpoint:
        with checkpoint.as_directory() as folder:
            # Not where the first worker had it: each has a device of its own.
            saved = torch.load(Path(folder) / "state.pt", map_location="cpu", weights_only=True)
        state, history = saved["state"], saved["history"]
    first = ray.train.get_context().get_world_rank() == 0
    device = ray.train.torch.get_device()
    told = 0.0

    def on_batch(epoch: int, done: float) -> None:
        nonlocal told
        if first and time.monotonic() - told > TELLING:
            told = time.monotonic()
            with suppress(OSError):  # it is for a display
                part = json.dumps({"epoch": epoch, "done": done}).encode()
                storage.write(part, TRAINING, name, BATCHES)

    for epoch in fit(
        network,
        images.load(prepared / f"{size}.npy", mask),
        labels,
        Recipe(**config["training"]),
        seed=config["seed"],
        device=device,
        state=state,
        on_batch=on_batch,
    ):
        report = {name: getattr(epoch, name) for name in REPORT}
        if first and config["score"]:
            with torch.compiler.set_stance("force_eager"):  # as it is evaluated afterwards
                scores = scored(network, prepared, size, part, device).summary()
            report |= {name: value for name, value in scores.items() if value is not None}
        history.append(report)
        if not first:
            ray.train.report(report)
            continue
        # Before the checkpoint: a training that has its last one has told its last epoch.
        storage.write(json.dumps(history).encode(), TRAINING, name, PROGRESS)
        with tempfile.TemporaryDirectory() as folder:
            _save({"state": epoch.state, "history": history}, Path(folder) / "state.pt")
            ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _save(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; of a full disk torch itself would not tell."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        path.write_bytes(buffer.getbuffer())
    except OSError as error:
        where = f"{socket.gethostname()}:{path}"
        raise OSError(error.errno, error.strerror, where) from error
