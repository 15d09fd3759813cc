"""The inputs of a batch: images, augmented at random on the device."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ianet.images import crop, erase, normalize, random_boxes
from ianet.training.recipe import Recipe
from ianet.training.transfer import send


def augment(
    images: Tensor,
    rows: NDArray[np.int64],
    share: NDArray[np.int64],
    recipe: Recipe,
    generator: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """Return the inputs of a worker's share of a batch.

    Random numbers are drawn for the whole batch, so that they do not depend on the share.

    Args:
        images: (N, H, W, 3) uint8, on any device.
        rows: (B,), the batch's rows of the images.
        share: places of the worker's share in the batch.
        recipe: how to augment.
        generator: of all random numbers.
        device: of the inputs.

    Returns:
        (len(share), 3, H, W) float32.
    """
    flips = generator.random(len(rows)) < recipe.flip
    pixels = images[send(rows[share], images.device)]
    if pixels.device.type != device.type:
        pixels = pixels.pin_memory().to(device, non_blocking=True)  # without waiting for the device
    if recipe.padding:
        corners = generator.integers(2 * recipe.padding + 1, size=(len(rows), 2))
        pixels = crop(pixels, send(corners[share], device), recipe.padding)
    inputs = normalize(pixels, send(flips[share], device))
    if recipe.erasing:
        size = (images.shape[1], images.shape[2])
        boxes = random_boxes(len(rows), size, recipe.erasing, generator)
        inputs = erase(inputs, send(boxes[share], device))
    return inputs
