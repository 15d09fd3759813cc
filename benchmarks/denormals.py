"""What denormal weights cost, and what `ianet.numerics.flush_denormals` saves.

    python benchmarks/denormals.py [--batches 4] [--repeats 5]

MobileNetV2 at 128x64, batch 32, in a process that has used torch before. Weights of a fraction of
the output channels of each convolution are 1e-39, as weight decay leaves them. `extract` and an
epoch of `fit` are run as they are, and without their flush. Seconds are those of the CPU, which
other processes disturb less: medians, all cases in turn, after one to warm up. Prints a table and
writes benchmarks/denormals.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from unittest import mock

import pandas as pd
import torch
from device import describe_machine, results
from rich.progress import track
from torch import Tensor, nn

from ianet.features import extract
from ianet.network import Network
from ianet.numerics import flush_denormals
from ianet.options import NetworkOptions
from ianet.training.fit import fit
from ianet.training.recipe import Recipe

HEIGHT, WIDTH, BATCH, IDENTITIES = 128, 64, 32, 751
FRACTIONS = (0.0, 0.5, 1.0)  # of the output channels
CPU = torch.device("cpu")


def build_network(fraction: float) -> Network:
    torch.manual_seed(0)
    network = Network(IDENTITIES, NetworkOptions("mobilenet_v2"))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[: round(fraction * len(module.weight))] = 1e-39
    return network


def run_extract(network: Network, images: Tensor) -> None:
    extract(network, images, device=CPU, batch=BATCH)


def run_fit(network: Network, images: Tensor) -> None:
    recipe = Recipe(height=HEIGHT, width=WIDTH, epochs=1, batch=BATCH, lr=1e-44, weight_decay=5e-4)
    list(fit(network, images, torch.arange(len(images)) % IDENTITIES, recipe, seed=0, device=CPU))


WAYS: dict[str, Callable[[Network, Tensor], None]] = {"extract": run_extract, "fit": run_fit}


@contextlib.contextmanager
def leave_out_flush() -> Iterator[None]:
    with (
        mock.patch("ianet.features.flush_denormals", contextlib.nullcontext),
        mock.patch("ianet.training.fit.flush_denormals", contextlib.nullcontext),
    ):
        yield


def measure(way: str, fraction: float, images: Tensor, *, flush: bool) -> float:
    """CPU seconds of a run."""
    network = build_network(fraction)
    start = time.process_time()
    with contextlib.nullcontext() if flush else leave_out_flush():
        WAYS[way](network, images)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    shape = (arguments.batches * BATCH, HEIGHT, WIDTH, 3)
    images = torch.randint(256, shape, dtype=torch.uint8)
    cases = [
        (way, fraction, flush) for way in WAYS for fraction in FRACTIONS for flush in (False, True)
    ]
    rows = []
    for repeat in track(range(arguments.repeats + 1), "denormals"):
        for way, fraction, flush in cases:
            seconds = measure(way, fraction, images, flush=flush)
            if repeat:
                rows.append({"way": way, "channels": fraction, "flush": flush, "CPU s": seconds})
    table = pd.DataFrame(rows).pivot_table("CPU s", ["way", "channels"], "flush", "median")
    table.columns = ["without a flush, CPU s", "CPU s"]
    table["times"] = table["without a flush, CPU s"] / table["CPU s"]
    table = table.round(3).reset_index()
    print(table.to_markdown(index=False))
    start = time.perf_counter()
    with flush_denormals():
        torch.ones(2**20).add_(1)
    milliseconds = round(1000 * (time.perf_counter() - start), 2)
    print(f"a flush by itself: {milliseconds} ms")
    content = {
        "machine": describe_machine(),
        "runs": table.to_dict("records"),
        "flush, ms": milliseconds,
    }
    results("denormals").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
