"""A tiny model, which was not trained, and the command line in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import noise, written
from PIL import Image
from torch import nn

from ianet.cli.main import main
from ianet.model import save_model
from ianet.network import Network, describe
from ianet.options import NetworkOptions

SIZE = (64, 32)
TERMS = "Synthetic people, free for any use."


NAMES = ["a/0001_c1s1_1.jpg", "a/0001_c2s1_1.jpg", "b/0002_c1s1_1.jpg"]


def write_photos(folder: Path) -> Path:
    """Pictures of several sizes and formats."""
    written(folder, NAMES)
    (folder / "c").mkdir()
    (folder / "c/large.jpg").write_bytes(noise(7, 200, 90))
    grey = np.random.default_rng(8).integers(0, 256, (70, 41), dtype=np.uint8)
    Image.fromarray(grey).save(folder / "c/grey.png")
    return folder


def tiny_network(seed: int = 0) -> Network:
    """MobileNetV2 whose BatchNorm has the statistics of noise."""
    torch.manual_seed(seed)
    network = Network(5, NetworkOptions(backbone="mobilenet_v2", after={"stage2": {}}))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    with torch.no_grad():
        network.train()(torch.randn(8, 3, *SIZE))
    return network.eval()


def tiny_model(folder: Path, seed: int = 0, name: str = "tiny") -> Path:
    """A folder of a model."""
    network = tiny_network(seed)
    height, width = SIZE
    description = describe(network, dataset="synthetic", height=height, width=width)
    save_model(network, description, folder, name=name, terms=TERMS)
    return folder


class Outcome(NamedTuple):
    code: int | None
    output: str
    errors: str


def runner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Return a function that runs the command `ianet` in this process."""

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ianet", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        code = end.value.code
        return Outcome(0 if code is None else int(code), captured.out, captured.err)

    return run
