"""What torch compiles of a training, and when that pays."""

from __future__ import annotations

import os
import re
import shutil

import torch
from torch import nn

from ianet.training.recipe import Recipe

LONG = 4 * 10**8
"""Pixels of all epochs from which on a CPU earns back the minute that it compiles for."""

BLOCK = re.compile(r"blocks\.\w+\.\w+")
"""Name of an inserted block of `ianet.network.Network`, such as "blocks.stage2.3"."""


def compile_network(
    network: nn.Module, recipe: Recipe, images: int, device: torch.device
) -> nn.Module:
    """Return the network as a training calls it, compiled where that pays.

    On a CPU the whole network is compiled, once for each size of batch. The given network stays as
    it is, for other uses. On a GPU its blocks are compiled in place. A block is dozens of short
    operations on large maps, which the compiler fuses. Residual blocks gain less there than their
    compilation takes.

    The choice depends on the recipe, the number of images and a compiler for C++ on this machine.
    So a training that resumes makes the same choice.

    Args:
        network: on the device.
        recipe: with "auto", a CPU compiles for trainings of at least `LONG` pixels, a GPU always.
        images: of the training set.
        device: that computes.
    """
    pixels = recipe.epochs * images * recipe.height * recipe.width
    pays = device.type == "cuda" or pixels >= LONG
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
