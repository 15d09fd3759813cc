"""The GPU of a benchmark, or the CPU where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from machine import processor

GPU = torch.cuda.is_available()


def describe_machine() -> str:
    """The GPU, or the CPU where there is none."""
    if GPU:
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads"


def results(name: str) -> Path:
    """Where a benchmark writes what it found: a GPU's beside a CPU's."""
    return Path("benchmarks", f"{name}-gpu.json" if GPU else f"{name}.json")


def capture_graph(step: Callable[[], object]) -> Callable[[], object]:
    """A step as one CUDA graph, as torch's documentation makes it: what a GPU needs for it, however
    fast Python is.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay
