"""The learning rate of inserted blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small import CPU, RECIPE, Small, data, recipe, small, weights
from torch import nn

from ianet.training.fit import fit


class WithBlock(Small):
    """A convolution in a block after that of `Small`, whose third channel has no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({"stage1": nn.Conv2d(4, 4, 1)})

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.blocks["stage1"](self.convolution(images)).abs().mean((2, 3))
        embeddings = features * torch.tensor([1.0, 1.0, 0.0, 1.0])
        return self.classifier(embeddings), embeddings


def with_block() -> WithBlock:
    torch.manual_seed(0)
    return WithBlock()


def moves(**changes: Any) -> dict[str, torch.Tensor]:
    """How far the first step of Adam moves each parameter."""
    before, network = with_block(), with_block()
    options = recipe(epochs=1, batch=20, weight_decay=1.0, **changes)
    list(fit(network, *data(), options, seed=0, device=CPU))
    pairs = zip(before.named_parameters(), network.parameters(), strict=True)
    return {name: (after - old).abs().detach() for (name, old), after in pairs}


@pytest.mark.parametrize(("block_lr", "factor"), [(None, 1.0), (0.1, 0.1), (5.0, 5.0), (2, 2.0)])
def test_learning_rate_of_blocks(block_lr: float | None, factor: float) -> None:
    """The first step of Adam moves a parameter by its learning rate, whatever the gradient."""
    expected = {
        name: 1e-2 * (factor if name.startswith("blocks.") else 1.0)
        for name, _ in with_block().named_parameters()
    }
    distances = moves(block_lr=block_lr)
    for name, distance in distances.items():
        # Without weight decay the third channel has no gradient at all.
        still = block_lr is not None and name.startswith("blocks.")
        rows = [0, 1, 3] if still else list(range(len(distance)))
        torch.testing.assert_close(
            distance[rows], torch.full_like(distance[rows], expected[name]), rtol=2e-3, atol=0
        )
        assert not still or not distance[2].any()


def test_learning_rate_of_blocks_follows_every_schedule() -> None:
    for schedule in ({"schedule": "step", "milestones": (2, 3)}, {"schedule": "cosine"}):
        for warm_up in (0, 2):
            options = recipe(epochs=4, block_lr=0.25, warm_up=warm_up, **schedule)
            for epoch in fit(with_block(), *data(), options, seed=0, device=CPU):
                rest, blocks = epoch.state["optimizer"]["param_groups"]
                assert rest["lr"] == epoch.lr
                assert blocks["lr"] == pytest.approx(0.25 * epoch.lr, abs=1e-12)
                assert (rest["weight_decay"], blocks["weight_decay"]) == (5e-4, 0.0)


def test_without_a_learning_rate_of_blocks_the_optimizer_is_plain_adam() -> None:
    network = with_block()
    plain = torch.optim.Adam(network.parameters(), lr=1e-2, weight_decay=5e-4, fused=True)
    report = next(fit(network, *data(), RECIPE, seed=0, device=CPU))
    (group,) = report.state["optimizer"]["param_groups"]
    (expected,) = plain.state_dict()["param_groups"]
    assert {name: group[name] for name in expected} == expected


def test_a_module_without_blocks_has_nothing_to_scale() -> None:
    scaled, plain = small(), small()
    list(fit(scaled, *data(), recipe(block_lr=7.0), seed=0, device=CPU))
    list(fit(plain, *data(), RECIPE, seed=0, device=CPU))
    assert torch.equal(weights(scaled), weights(plain))
