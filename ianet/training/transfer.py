"""The way of arrays to the device."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def send(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return the values on the device, without waiting for the device."""
    return torch.from_numpy(values).to(device, non_blocking=True)


def place_images(images: Tensor, device: torch.device) -> Tensor:
    """Return the images on the device, or where they are if they take half of its free memory."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if 2 * images.nbytes > free:
            return images
    return images.to(device)
