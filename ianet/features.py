"""Features of packed images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ianet.images import normalize


@torch.inference_mode()
def extract(
    network: nn.Module, images: Tensor, *, device: torch.device, batch: int = 128
) -> Tensor:
    """Return features in evaluation mode, (N, D) float32 on the device.

    Args:
        network: gives features (B, D) in evaluation mode; it is moved to `device`.
        images: (N, H, W, 3) uint8.
        device: that computes.
        batch: images of one forward pass.
    """
    network.to(device).to(memory_format=torch.channels_last).eval()
    return torch.cat(
        [network(normalize(pixels.to(device))).float() for pixels in images.split(batch)]
    )
