"""Features of packed images, and of images as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ianet.images import normalize
from ianet.numerics import NARROW, flush_denormals, is_narrow
from ianet.options import refuse_unknown
from ianet.reading import PackedImages, read

Precision = Literal["float32", "bfloat16"]


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
    places = [slice(first, first + batch) for first in range(0, len(images) or 1, batch)]
    return torch.cat(list(extract_batches(network, read(images, places), device=device)))


@torch.inference_mode()
def extract_batches(
    network: nn.Module,
    batches: Iterable[Tensor],
    *,
    device: torch.device,
    precision: Precision = "float32",
    flip: bool = False,
) -> Iterator[Tensor]:
    """Yield the features of each batch in evaluation mode, (B, D) float32 on the device.

    Args:
        network: gives features (B, D) in evaluation mode; it is moved to `device`.
        batches: (B, H, W, 3) uint8 each.
        device: that computes.
        precision: "bfloat16" is faster on a GPU; relations stay in float32, but for those of CIA
            at no more than 256 positions on a GPU.
        flip: whether features are the mean of those of the image and of its mirror image.

    Raises:
        ValueError: an unknown precision, or bfloat16 on a CPU for images of at most `NARROW` pixels
            in width.
    """
    refuse_unknown("precision", precision, get_args(Precision))
    with torch.inference_mode(False):  # else no training could follow
        network.to(device).to(memory_format=torch.channels_last).eval()
    reduced = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    for images in batches:
        width = images.shape[2]
        if precision == "bfloat16" and is_narrow(device, width):
            raise ValueError(
                f"precision is 'bfloat16', in which a CPU cannot compute images {width} pixels "
                f"wide: take float32, or a network of images wider than {NARROW}"
            )
        pixels = images.to(device)
        # For each batch anew: between two batches the caller computes as the caller did before.
        with flush_denormals(), reduced:
            features = network(normalize(pixels)).float()
            if flip:
                mirrored = torch.ones(len(pixels), dtype=torch.bool, device=device)
                features = (features + network(normalize(pixels, mirrored)).float()) / 2
        yield features
