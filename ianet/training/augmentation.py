"""The inputs of a batch: images, augmented at random on the device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ianet.images import crop, erase, normalize, random_boxes
from ianet.reading import send
from ianet.training.recipe import Recipe


def augment(
    pixels: Tensor,
    share: NDArray[np.int64],
    batch: int,
    recipe: Recipe,
    generator: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """Return the inputs of a worker's share of a batch.

    Random numbers are drawn for the whole batch, so that they do not depend on the share.

    Args:
        pixels: (len(share), H, W, 3) uint8, the images of the share, on any device.
        share: places of the worker's share in the batch.
        batch: images of the batch.
        recipe: how to augment.
        generator: of all random numbers.
        device: of the inputs.

    Returns:
        (len(share), 3, H, W) float32.
    """
    flips = generator.random(batch) < recipe.flip
    size = (pixels.shape[1], pixels.shape[2])
    if pixels.device.type != device.type:
        pixels = pixels.pin_memory().to(device, non_blocking=True)  # without waiting for the device
    if recipe.padding:
        corners = generator.integers(2 * recipe.padding + 1, size=(batch, 2))
        pixels = crop(pixels, send(corners[share], device), recipe.padding)
    inputs = normalize(pixels, send(flips[share], device))
    if recipe.erasing:
        boxes = random_boxes(batch, size, recipe.erasing, generator)
        inputs = erase(inputs, send(boxes[share], device))
    return inputs
