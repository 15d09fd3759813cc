"""Features of packed images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ianet.images import normalize
from ianet.numerics import flush_denormals
from ianet.reading import PackedImages, read


@torch.inference_mode()
def extract(
    network: nn.Module, images: Tensor | PackedImages, *, device: torch.device, batch: int = 128
) -> Tensor:
    """Return features in evaluation mode, (N, D) float32 on the device.

    Args:
        network: gives features (B, D) in evaluation mode; it is moved to `device`.
        images: (N, H, W, 3) uint8, in memory or in their file.
        device: that computes.
        batch: images of one forward pass.
    """
    network.to(device).to(memory_format=torch.channels_last).eval()
    batches = [slice(first, first + batch) for first in range(0, len(images) or 1, batch)]
    with flush_denormals():
        return torch.cat(
            [network(normalize(pixels.to(device))).float() for pixels in read(images, batches)]
        )
