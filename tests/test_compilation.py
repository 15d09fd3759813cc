"""When torch compiles a training, and that compiled code trains the same network."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.training import compilation
from ianet.training.compilation import compile_network
from ianet.training.fit import Epoch, fit
from ianet.training.recipe import Recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda")
IMAGES, BATCH, EPOCHS = 7, 4, 3  # batches of 4 and 3


class Small(nn.Module):
    """A network that is compiled in seconds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 3, stride=4, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.norm(self.convolution(images)).relu().mean((2, 3))
        return self.classifier(embeddings), embeddings


def recipe(**changes: Any) -> Recipe:
    size = {"height": 32, "width": 16, "epochs": EPOCHS, "batch": BATCH}
    return Recipe(**{**size, "lr": 0.01, "weight_decay": 5e-4, **changes})


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, compiler: None) -> list[nn.Module]:
    """The modules that torch is asked to compile, on a CPU and in place."""
    modules: list[nn.Module] = []

    def compile_(module: nn.Module, **_: Any) -> nn.Module:
        modules.append(module)
        return nn.Sequential(module)

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(nn.Module, "compile", compile_)
    return modules


@pytest.mark.parametrize(
    ("choice", "expected"), [("auto", False), ("always", True), ("never", False)]
)
def test_a_cpu_compiles_the_whole_and_leaves_the_network_as_it_is(
    compiled: list[nn.Module], choice: str, *, expected: bool
) -> None:
    network = Small()
    model = compile_network(network, recipe(compile=choice), CPU)
    assert (model is not network) == expected
    assert compiled == ([network] if expected else [])


@pytest.mark.parametrize("choice", ["auto", "always", "never"])
def test_a_gpu_compiles_the_blocks_in_place(compiled: list[nn.Module], choice: str) -> None:
    options = NetworkOptions(backbone="resnet18", after={"stage2": {}, "stage3": {}})
    network = Network(3, options)
    assert compile_network(network, recipe(compile=choice), GPU) is network
    blocks = [block for stage in network.blocks.children() for block in stage.children()]
    assert len(blocks) == 2
    assert compiled == ([] if choice == "never" else blocks)
    compiled.clear()
    assert compile_network(small := Small(), recipe(compile=choice), GPU) is small
    assert compiled == []


def test_without_a_compiler_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, compiled: list[nn.Module]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for device in (CPU, GPU):
        compile_network(Small(), recipe(compile="always"), device)
    assert compiled == []


def train(network: nn.Module, state: Any = None, **changes: Any) -> list[Epoch]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (IMAGES, 32, 16, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(IMAGES) % 3
    epochs = fit(network, images, labels, recipe(**changes), seed=0, device=CPU, state=state)
    return [replace(epoch, state=deepcopy(epoch.state)) for epoch in epochs]


def test_each_size_of_batch_is_compiled_once(
    monkeypatch: pytest.MonkeyPatch, compiler: None
) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=count))
    train(Small(), compile="always")
    assert len(graphs) == 2


@pytest.mark.slow
@pytest.mark.skipif(not compilation._has_compiler(), reason="there is no compiler for C++")
def test_compiled_code_trains_the_same_network_and_resumes_to_the_bit() -> None:
    eager, compiled, resumed = Small(), Small(), Small()
    expected = train(eager, compile="never")
    torch.compiler.reset()
    epochs = train(compiled, compile="always")
    for one, other in zip(epochs, expected, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
    for mine, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    torch.compiler.reset()  # as in a new process
    rest = train(resumed, state=epochs[0].state, compile="always")
    assert [epoch.epoch for epoch in rest] == [2, 3]
    for mine, theirs in zip(resumed.parameters(), compiled.parameters(), strict=True):
        assert torch.equal(mine, theirs)
