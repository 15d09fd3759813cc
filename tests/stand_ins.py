"""Stand-ins for parts of Ray."""

from __future__ import annotations

import pytest
import ray


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
