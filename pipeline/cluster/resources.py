"""How the GPUs and CPU cores of a Ray are shared out among trainings.

The number of cores of a worker is its number of threads, which changes results as another seed
does. So a change of this file retrains every run.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple


class Share(NamedTuple):
    """What one training gets: workers, and the CPU cores and GPUs of each."""

    workers: int
    cpus: int
    gpus: int


def share(workers: int | str, *, alone: bool) -> Share:
    """The share of one training.

    A worker has a GPU where there are any. One of several trainings has its part of the CPU
    cores. A training alone has all cores, as far as its workers find room on the nodes.

    Args:
        workers: a number, or "auto": one.
        alone: whether it is the only training on this Ray.

    Raises:
        ValueError: more workers than GPUs, or than cores where there is no GPU.
    """
    nodes = _held()
    gpus, cores = (sum(numbers) for numbers in zip(*nodes, strict=True))
    most = _places(nodes, 1)
    if not most:
        raise ValueError(f"Ray holds {gpus} GPUs and {cores} CPU cores, no place for a worker yet")
    number = count_workers(workers)
    if number > most:
        raise ValueError(
            f"workers is {number}, but Ray holds {gpus} GPUs and {cores} CPU cores: set workers "
            f"in params.yaml to {most} at most, or to auto"
        )
    places = number if alone else most
    cpus = max(each for each in range(1, cores + 1) if _places(nodes, each) >= places)
    return Share(number, cpus, 1 if gpus else 0)


def count_workers(workers: int | str) -> int:
    """The number of workers that params.yaml asks for.

    "auto" is one on every machine. Several workers share each batch, and batch normalisation sees
    their parts alone. So their number changes what is trained.
    """
    return 1 if workers == "auto" else int(workers)


def trainings_at_a_time(workers: int | str) -> int:
    """How many trainings of so many workers a shared Ray holds at a time, one at least.

    Args:
        workers: as in params.yaml.
    """
    return max(_places(_held(), 1) // count_workers(workers), 1)


def cores() -> int:
    """The CPU cores of this machine, or those of them that this process is bound to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def live_nodes() -> list[dict[str, Any]]:
    """The nodes of this Ray, as `ray.nodes` describes them."""
    import ray  # a second that other users of this file need not spend

    return [node for node in ray.nodes() if node["Alive"]]


def _held() -> list[tuple[int, int]]:
    """The GPUs and CPU cores that Ray holds, of each node."""
    resources = [node["Resources"] for node in live_nodes()]
    return [(int(node.get("GPU", 0)), int(node.get("CPU", 0))) for node in resources]


def _places(nodes: list[tuple[int, int]], cpus: int) -> int:
    """How many workers find room with so many cores each, and a GPU where there are any."""
    if any(gpus for gpus, _ in nodes):
        return sum(min(gpus, cores // cpus) for gpus, cores in nodes)
    return sum(cores // cpus for _, cores in nodes)
