"""Forward and backward of the blocks, against what they replace.

    python benchmarks/blocks.py [--batch 32 256]

At the places of the paper's network, after stages 2 and 3 of a ResNet-50 at 256x128: SIA with
contexts 1, 2, 3 from one Gram matrix (ours), from patches that are extracted and multiplied, by
torch.compile of ours where there is a compiler, and with context 1 alone; CIA; and the whole IA
block. In float32 and in bfloat16 autocast, in which relations stay in float32.

Each place and precision in a process of its own on a CPU; on a GPU each form is a CUDA graph, as in
a training, and has its peak memory beside it. Seconds are the median of five after one to warm up,
all forms in turn within each. Prints a table and writes benchmarks/blocks.json, or blocks-gpu.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pandas as pd
import torch
from device import GPU, capture_graph, describe_machine, results
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from ianet import relations
from ianet.blocks.ia import ChannelIA, IABlock, SpatialIA

if not GPU:
    from pipeline.cluster.environment import SETTINGS

    os.environ.update(SETTINGS)  # as a worker has them, for the processes

PLACES = {"stage 2": (512, 32, 16), "stage 3": (1024, 16, 8)}
REPEATS = 5


class SpatialIAByPatches(SpatialIA):
    """The same block with every patch extracted, as Eq. 1 reads."""

    def _appearance(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            maps = []
            for context in self.contexts:
                before = (context - 1) // 2
                after = context - 1 - before
                padded = F.pad(features.float(), (before, after, before, after))
                patches = F.unfold(padded, context)  # (B, C K K, M)
                maps.append(torch.softmax(patches.transpose(1, 2) @ patches, dim=-1))
            return relations.normalize(relations.fuse(maps, self.fusion), self.normalization)


def build_forms(channels: int) -> dict[str, nn.Module]:
    """Each way, by name; the first is what the others are compared with."""
    blocks: dict[str, nn.Module] = {
        "SIA": SpatialIA(channels),
        "SIA by patches": SpatialIAByPatches(channels),
        "SIA, context 1": SpatialIA(channels, contexts=[1]),
        "CIA": ChannelIA(channels),
        "IA": IABlock(channels),
    }
    if GPU or shutil.which("g++"):
        blocks["SIA compiled"] = torch.compile(SpatialIA(channels), dynamic=False)  # type: ignore[assignment]
    return blocks


def build_step(block: nn.Module, features: Tensor, autocast: bool) -> Callable[[], None]:
    def run() -> None:
        with torch.autocast(features.device.type, torch.bfloat16, enabled=autocast):
            output = block(features)
        output.sum().backward()

    return run


def measure(place: str, batch: int, autocast: bool) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    torch.compiler.reset()
    torch.set_flush_denormal(True)
    if GPU:  # as `fit`
        torch.set_float32_matmul_precision("high" if autocast else "highest")
    channels, height, width = PLACES[place]
    device = torch.device("cuda" if GPU else "cpu")
    dtype = torch.bfloat16 if autocast else torch.float32
    shape = (batch, channels, height, width)
    features = torch.randn(shape, device=device, dtype=dtype)
    features = features.to(memory_format=torch.channels_last).requires_grad_()  # a convolution's
    # A fresh block ends in a BatchNorm of weight 0, through which no gradient passes.
    steps: dict[str, Callable[[], object]] = {}
    memory = {}
    for name, block in build_forms(channels).items():
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
        steps[name] = build_step(block.to(device), features, autocast)
        if GPU:
            steps[name]()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            steps[name]()
            memory[name] = torch.cuda.max_memory_allocated() - before
            steps[name] = capture_graph(steps[name])
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(REPEATS + 1):
        for name, run in steps.items():
            start = time.perf_counter()
            run()
            if GPU:
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    first = median(seconds["SIA"])
    return [
        {
            "place": place,
            "batch": batch,
            "precision": "bfloat16" if autocast else "float32",
            "form": name,
            "ms": round(1000 * median(times), 2 if GPU else 1),
            "times SIA": round(median(times) / first, 2),
            **({"GB": round(memory[name] / 1e9, 2)} if GPU else {}),
        }
        for name, times in seconds.items()
    ]


def measure_alone(*case: Any) -> list[dict[str, Any]]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, case)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[32])
    batches = parser.parse_args().batch
    rows = []
    cases = list(itertools.product(PLACES, batches, (False, True)))
    for case in track(cases, "blocks"):
        rows += (measure if GPU else measure_alone)(*case)
    print(pd.DataFrame(rows).to_markdown(index=False))
    content = {"machine": describe_machine(), "cases": rows}
    results("blocks").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
