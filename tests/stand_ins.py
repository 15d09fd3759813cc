"""Stand-ins for parts of Ray, and for another command."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
import ray

from pipeline.cluster.storage import Storage


def hold(monkeypatch: pytest.MonkeyPatch, *nodes: tuple[int, int]) -> None:
    """Let each node have so many GPUs and cores."""
    live = [
        {
            "Alive": True,
            "Resources": {"CPU": float(cores), **({"GPU": float(gpus)} if gpus else {})},
        }
        for gpus, cores in nodes
    ]
    lost = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [*live, lost])


def replace_lease(storage: Storage, path: Sequence[str]) -> None:
    """Let another command have a lease, as after a long sleep of this machine."""
    entry = json.loads(storage.read(*path) or b"")
    other = {"token": "other", "user": "maria", "host": "far", "process": 7, "folder": "/m"}
    storage.write(json.dumps({**entry, **other}).encode(), *path)
