"""A small training: its network, images, recipe and weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ianet.training.recipe import Recipe

CPU = torch.device("cpu")
RECORD: dict[str, Any] = {
    **{"id": "1", "digest": "2", "source": "data", "configuration": {}},
    **{"commit": "abc1234", "date": "2026-11-29 02:30"},
    "environment": {"torch": "2", "device": "AMD EPYC"},
}
"""The content of a run's training.json."""
RECIPE = Recipe(height=16, width=8, epochs=3, batch=6, lr=1e-2, weight_decay=5e-4)
STRONG: dict[str, Any] = {
    "warm_up": 2,
    "padding": 2,
    "erasing": 0.5,
    "images_per_identity": 2,
    "triplet_margin": 0.3,
    "label_smoothing": 0.1,
}


class Small(nn.Module):
    """A network without BatchNorm, whose gradient is a sum over images."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings = self.convolution(images).relu().mean((2, 3))
        return self.classifier(embeddings), embeddings


class Breaks(Small):
    """A network whose logits are NaN in one forward pass."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.passes = number, 0

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.passes += 1
        logits, embeddings = super().forward(images)
        return (logits * math.nan if self.passes == self.number else logits), embeddings


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    return Small()


def data(images: int = 20, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 16, width, 3), dtype=torch.uint8, generator=generator)
    return pixels, torch.arange(images) % 5


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in network.state_dict().values()])


def recipe(**changes: Any) -> Recipe:
    return Recipe(**{**RECIPE.__dict__, **changes})
