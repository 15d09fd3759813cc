"""What torch compiles of a training, and when that pays."""

from __future__ import annotations

import os
import re
import shutil

import torch
from torch import nn

from ianet.training.recipe import Recipe

BLOCK = re.compile(r"blocks\.\w+\.\w+")
"""Name of an inserted block of `ianet.network.Network`, such as "blocks.stage2.3"."""


def compile_network(network: nn.Module, recipe: Recipe, device: torch.device) -> nn.Module:
    """Return the network as a training calls it, compiled where that pays.

    On a GPU blocks are compiled in place. A block is dozens of short operations on large maps,
    which the compiler fuses. Residual blocks gain less there than their compilation takes. On a
    CPU the whole network is compiled, once for each size of batch. The given network stays as it
    is, for other uses.

    Args:
        network: on the device.
        recipe: with "auto", a GPU compiles and a CPU does not, see docs/performance.md.
        device: that computes.
    """
    pays = device.type == "cuda"
    if recipe.compile == "never" or (recipe.compile == "auto" and not pays) or not _has_compiler():
        return network
    if device.type == "cuda":
        for name, module in network.named_modules():
            if BLOCK.fullmatch(name):
                module.compile(dynamic=False)
        return network
    # torch's types say that a function is returned. Of a module it is a module.
    return torch.compile(network, dynamic=False)  # type: ignore[return-value]


def _has_compiler() -> bool:
    """Return whether torch finds a compiler for C++, without which its compiler fails."""
    names = (os.environ.get("CXX"), os.environ.get("CC"), "g++", "clang++")
    return any(shutil.which(name) for name in names if name)
