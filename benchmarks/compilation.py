"""The fastest way to train on a CPU: eager or compiled, memory format, number format.

    python benchmarks/compilation.py [--networks mobilenet_v2 resnet18] [--steps 12]

A step is forward, backward and optimizer on one random batch of 32 images of 128x64. Each case runs
in a process of its own, with the compiled code of earlier cases out of reach. The speed is the
median over the steps after the first three. Compilation is the time of these three, less three
steps. Nothing else may run on the machine. Writes benchmarks/compilation.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from machine import processor

RESULTS = Path(__file__).with_suffix(".json")
BLOCKS: dict[str, dict[str, Any]] = {
    "without": {},
    "stage 2, 3": {"after": {"stage2": {"sigma": (10, 20)}, "stage3": {"sigma": (5, 10)}}},
}
BATCH, HEIGHT, WIDTH, IDENTITIES = 32, 128, 64, 751
WARM_UP = 3


class Case(NamedTuple):
    backbone: str
    blocks: str
    way: str  # eager, compiled
    memory: str  # channels first, channels last
    precision: str  # float32, bfloat16


CHOICES = Case(
    ("mobilenet_v2", "resnet18", "resnet50"),  # type: ignore[arg-type]
    tuple(BLOCKS),  # type: ignore[arg-type]
    ("eager", "compiled"),  # type: ignore[arg-type]
    ("channels first", "channels last"),  # type: ignore[arg-type]
    ("float32", "bfloat16"),  # type: ignore[arg-type]
)


def measure(case: Case, steps: int) -> dict[str, float]:
    """Images a second and seconds of compilation of a case, in this process."""
    import torch

    from ianet.network import Network
    from ianet.options import NetworkOptions
    from ianet.training.recipe import Recipe
    from ianet.training.step import compute_gradients

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    network = Network(IDENTITIES, NetworkOptions(backbone=case.backbone, **BLOCKS[case.blocks]))
    inputs = torch.randn(BATCH, 3, HEIGHT, WIDTH)
    if case.memory == "channels last":
        network.to(memory_format=torch.channels_last)
        inputs = inputs.to(memory_format=torch.channels_last)
    if case.way == "compiled":
        network.compile(dynamic=False)
    recipe = Recipe(height=HEIGHT, width=WIDTH, epochs=1, batch=BATCH, lr=3e-4, weight_decay=5e-4)
    optimizer = torch.optim.Adam(
        network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    labels = torch.randint(IDENTITIES, (BATCH,))
    places = torch.arange(BATCH)
    seconds = []
    network.train()
    for _ in range(WARM_UP + steps):
        start = time.perf_counter()
        optimizer.zero_grad()
        compute_gradients(
            network, inputs, labels, places,
            recipe=recipe, mixed=case.precision == "bfloat16", workers=1,
        )  # fmt: skip
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    step = median(seconds[WARM_UP:])
    return {"images/s": BATCH / step, "compilation": sum(seconds[:WARM_UP]) - WARM_UP * step}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--networks", nargs="+", default=CHOICES.backbone)
    options.add_argument("--steps", type=int, default=12)
    options.add_argument("--case", type=int, help="measure this case alone, here")
    arguments = options.parse_args()
    cases = [Case(*values) for values in itertools.product(*CHOICES)]
    if arguments.case is not None:
        print(json.dumps(measure(cases[arguments.case], arguments.steps)))
        return
    rows = []
    for number, case in enumerate(cases):
        if case.backbone not in arguments.networks:
            continue
        with tempfile.TemporaryDirectory() as folder:
            output = subprocess.run(
                [sys.executable, __file__, "--case", str(number), "--steps", str(arguments.steps)],
                env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        row = {**case._asdict(), **json.loads(output.splitlines()[-1])}
        rows.append(row)
        print(*case, f"{row['images/s']:.0f} images/s, {row['compilation']:.0f} s", sep=" | ")
    RESULTS.write_text(json.dumps({"processor": processor(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
