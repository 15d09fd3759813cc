"""A training step and an epoch of a backbone and of IANet.

    python benchmarks/training.py [--batch 32 64] [--steps 4] [--precision float32 bfloat16]
    python benchmarks/training.py --backbone mobilenet_v2 --size 128x64 --network base.

By default the backbone is ResNet-50, and images are 256x128.

For each network, precision and batch: the bare step, forward, backward and optimizer on one random
batch that lies on the device, on a GPU as one CUDA graph and as Python launches it; an epoch of
`ianet.training.fit`; and, in float32, an epoch of torchreid's engine with the same network, from
JPEGs of 128x64 in a folder, by its own data manager and loader processes. torchreid is no
dependency of the project: without it its rows are left out,

    pip install torchreid==0.2.5 gdown tensorboard opencv-python-headless

brings it. "of torchreid" is the speed divided by that of torchreid's engine with the same network
and batch, which computes in float32.

Every case has `--steps` steps an epoch (4 on a CPU, 40 on a GPU), the median of three epochs after
one to warm up. On a CPU each runs in a process of its own, and memory is the peak of that; on a
GPU, of what torch took there. Prints a table and writes benchmarks/training.json, or
training-gpu.json.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import math
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from device import GPU, capture_graph, describe_machine, results
from PIL import Image
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from ianet.network import Network
from ianet.options import BACKBONES, NetworkOptions
from ianet.training.compilation import compile_network
from ianet.training.fit import fit
from ianet.training.recipe import Recipe

if not GPU:
    from pipeline.cluster.environment import SETTINGS

    os.environ.update(SETTINGS)  # as a worker has them, for the processes

NETWORKS: dict[str, dict[str, Any]] = {
    "base.": {},
    "IANet": {
        "block": "ia",
        "after": {"stage2": {"sigma": (10, 20)}, "stage3": {"sigma": (5, 10)}},
    },
}
IDENTITIES = 751
EPOCHS = 4  # the first warms up
BARE, LAUNCHED = "bare step", "bare step, launched by Python"
TORCHREID = "torchreid"


class Case(NamedTuple):
    backbone: str
    size: str  # <height>x<width>
    network: str
    batch: int
    precision: str
    way: str
    steps: int

    @property
    def height(self) -> int:
        return int(self.size.split("x")[0])

    @property
    def width(self) -> int:
        return int(self.size.split("x")[1])


def build_recipe(case: Case) -> Recipe:
    return Recipe(
        height=case.height,
        width=case.width,
        epochs=EPOCHS,
        batch=case.batch,
        lr=3e-4,
        weight_decay=5e-4,
        milestones=(20, 40),
        precision=case.precision,  # type: ignore[arg-type]
    )


def time_bare(network: Network, case: Case, device: torch.device) -> Iterator[float]:
    """Seconds of an epoch of steps that want nothing but a batch that is there."""
    network.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(
        network.parameters(), lr=3e-4, weight_decay=5e-4, fused=True, capturable=GPU
    )
    inputs = torch.randn(case.batch, 3, case.height, case.width, device=device)
    inputs = inputs.to(memory_format=torch.channels_last)
    labels = torch.randint(IDENTITIES, (case.batch,), device=device)
    mixed = case.precision == "bfloat16"
    if GPU:  # as `fit`
        torch.set_float32_matmul_precision("high" if mixed else "highest")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            logits, _ = network(inputs)
            loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()

    run = capture_graph(step) if GPU and case.way == BARE else step
    for _ in range(EPOCHS):
        start = time.perf_counter()
        for _ in range(case.steps):
            run()
        if GPU:
            torch.cuda.synchronize()
        yield time.perf_counter() - start


def time_fit(network: Network, case: Case, device: torch.device) -> Iterator[float]:
    """Seconds of an epoch of `fit`."""
    number = case.steps * case.batch
    shape = (number, case.height, case.width, 3)
    images = torch.randint(256, shape, dtype=torch.uint8, device=device)
    labels = torch.arange(number) % IDENTITIES
    for epoch in fit(network, images, labels, build_recipe(case), seed=0, device=device):
        yield epoch.seconds


class Logits(nn.Module):
    """What torchreid's engine asks of a model."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0]


def time_torchreid(network: Network, case: Case, device: torch.device) -> Iterator[float]:
    """Seconds of an epoch of torchreid's engine."""
    from torchreid.reid import data, engine, optim

    multiprocessing.set_start_method("fork", force=True)  # Linux's own, for its loader
    with tempfile.TemporaryDirectory() as folder:
        generator = np.random.default_rng(0)
        entries = []
        for number in range(case.steps * case.batch):
            path = Path(folder) / f"{number}.jpg"
            coarse = generator.integers(256, size=(16, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((64, 128)).save(path, quality=90)
            entries.append((str(path), number % IDENTITIES, number % 2))

        class Listed(data.ImageDataset):
            def __init__(self, root: str = "", **options: Any) -> None:
                super().__init__(entries, entries[:1], entries[1:2], **options)

        data.register_image_dataset("listed", Listed)
        manager = data.ImageDataManager(
            sources="listed",
            height=case.height,
            width=case.width,
            batch_size_train=case.batch,
            use_gpu=device.type == "cuda",
        )
        model = Logits(network).to(device)
        optimizer = optim.build_optimizer(model, optim="adam", lr=3e-4)
        trainer = engine.ImageSoftmaxEngine(
            manager,
            model,
            optimizer,
            scheduler=optim.build_lr_scheduler(optimizer, stepsize=20),
            use_gpu=device.type == "cuda",
            label_smooth=False,
        )
        trainer.max_epoch = EPOCHS
        for _ in range(EPOCHS):
            start = time.perf_counter()
            trainer.train()
            yield time.perf_counter() - start


WAYS = {BARE: time_bare, LAUNCHED: time_bare, "fit": time_fit, TORCHREID: time_torchreid}


def measure(case: Case) -> dict[str, Any]:
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if GPU else "cpu")
    if GPU:
        gc.collect()
        torch.cuda.empty_cache()
        torch.compiler.reset()
        torch.cuda.reset_peak_memory_stats()
        torch.set_float32_matmul_precision("highest")
    options = NetworkOptions(case.backbone, weights="none", **NETWORKS[case.network])
    network = Network(IDENTITIES, options)
    if case.way == BARE:
        compile_network(network, build_recipe(case), device)
    _, *seconds = WAYS[case.way](network, case, device)
    peak = (
        torch.cuda.max_memory_allocated()
        if GPU
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return {
        **case._asdict(),
        "images/s": round(case.steps * case.batch / median(seconds), 1),
        "GB": round(peak / 1e9, 2),
    }


def measure_alone(case: Case) -> dict[str, Any]:
    # Not a Pool, whose processes may have no children: torchreid's loader has.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, case).result()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    parser.add_argument("--steps", type=int, default=40 if GPU else 4)
    precisions = ["float32", "bfloat16"]
    parser.add_argument("--precision", nargs="+", choices=precisions, default=precisions)
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--backbone", choices=BACKBONES, default="resnet50")
    parser.add_argument("--size", default="256x128", help="of an image, <height>x<width>")
    arguments = parser.parse_args()
    has_torchreid = importlib.util.find_spec(TORCHREID) is not None
    cases = [
        Case(arguments.backbone, arguments.size, network, batch, precision, way, arguments.steps)
        for batch in arguments.batch
        for precision in arguments.precision
        for network in arguments.network
        for way in WAYS
        if (way != LAUNCHED or GPU)
        and (way != TORCHREID or (has_torchreid and precision == "float32"))
    ]
    rows = []
    for case in track(cases, "training"):
        rows.append((measure if GPU else measure_alone)(case))
    table = pd.DataFrame(rows)
    speeds = table.set_index(["batch", "precision", "network", "way"])["images/s"]
    for level, of in (("way", BARE), ("network", "base.")):
        if of in speeds.index.get_level_values(level):
            ratios = (speeds / speeds.xs(of, level=level)).reindex(speeds.index)
            table[f"of {of}"] = ratios.round(3).to_numpy()
    engine = table[table.way == TORCHREID].set_index(["network", "batch"])["images/s"]
    if len(engine):
        pairs = zip(table.network, table.batch, strict=True)
        table["of torchreid"] = (
            table["images/s"] / [engine.get(pair, math.nan) for pair in pairs]
        ).round(2)
    print(table.drop(columns="steps").to_markdown(index=False))
    content = {"machine": describe_machine(), "cases": table.to_dict("records")}
    results("training").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
