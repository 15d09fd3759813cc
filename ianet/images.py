"""Packed images, see `ianet.packing`, augmented by the batch on the device.

The layout is (N, H, W, 3) uint8, RGB. A view of this layout as (N, 3, H, W) has torch's
channels-last memory format, in which convolutions on a CPU run up to twice as fast.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ianet.reading import PackedImages

# ImageNet's, in RGB, as every weights file of torchvision expects.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

# Zhong et al., Random Erasing Data Augmentation (AAAI 2020), with the ranges of Luo et al., Bag of
# Tricks (CVPRW 2019, Section 3.2): the fraction of the image, and height over width.
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = (0.3, 3.33)
ERASED_ATTEMPTS = 100  # to find a rectangle that lies in the image, as in both releases


def load(path: Path, rows: NDArray[np.bool_] | None = None) -> Tensor:
    """Return packed images in memory, (N, H, W, 3) uint8.

    Args:
        path: the .npy file of `ianet.packing`.
        rows: a mask of the rows to read; all by default.

    Raises:
        OSError, ValueError: as `PackedImages`.
    """
    return PackedImages(path, rows)[:]


def normalize(images: Tensor, flips: Tensor | None = None) -> Tensor:
    """Return a batch as the inputs of a network.

    Args:
        images: (B, H, W, 3) uint8, on any device.
        flips: (B,) bool, which images are mirrored left to right; none by default.

    Returns:
        (B, 3, H, W) float32, channels last in memory, ImageNet's mean and deviation removed.
    """
    if flips is not None:
        images = torch.where(flips[:, None, None, None], images.flip(2), images)
    # `non_blocking` does not wait for the device.
    mean = torch.tensor(MEAN).to(images.device, non_blocking=True) * 255
    deviation = torch.tensor(DEVIATION).to(images.device, non_blocking=True) * 255
    return ((images - mean) / deviation).permute(0, 3, 1, 2)


def crop(images: Tensor, corners: Tensor, padding: int) -> Tensor:
    """Return images padded with black on every side, and cropped to their size before.

    Args:
        images: (B, H, W, 3) uint8, on any device.
        corners: (B, 2) int64 on that device, top and left of the crop in the padded image, 0 to
            2 `padding`. A corner of (`padding`, `padding`) gives the image before padding.
        padding: in pixels.

    Returns:
        (B, H, W, 3) uint8.
    """
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    rows = corners[:, 0, None] + torch.arange(height, device=images.device)
    columns = corners[:, 1, None] + torch.arange(width, device=images.device)
    image = torch.arange(count, device=images.device)
    return padded[image[:, None, None], rows[:, :, None], columns[:, None, :]]


def random_boxes(
    count: int, size: tuple[int, int], probability: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return random rectangles for `erase`, by Algorithm 1 of Zhong et al.

    Area and height over width are uniform in `ERASED_AREA` and `ERASED_ASPECT`. Both are drawn
    again until the rectangle fits the image. The place of the rectangle is uniform, too.

    Args:
        count: of images.
        size: of the images.
        probability: that an image gets a rectangle.
        generator: of all random numbers.

    Returns:
        (count, 4): top, left, height and width in pixels, the last two 0 without a rectangle.
    """
    shape = (count, ERASED_ATTEMPTS)
    area = generator.uniform(*ERASED_AREA, shape) * size[0] * size[1]
    aspect = generator.uniform(*ERASED_ASPECT, shape)
    sides = np.rint([np.sqrt(area * aspect), np.sqrt(area / aspect)]).astype(np.int64)
    fits = (sides[0] <= size[0]) & (sides[1] <= size[1])
    first = (np.arange(count), fits.argmax(1))
    erases = fits[first] & (generator.random(count) < probability)
    height, width = np.where(erases, sides[:, *first], 0)
    top, left = generator.integers([size[0] - height + 1, size[1] - width + 1])
    return np.stack([top, left, height, width], axis=1)


def erase(inputs: Tensor, boxes: Tensor) -> Tensor:
    """Return normalised images with a rectangle of each set to 0, which is ImageNet's mean.

    Args:
        inputs: (B, 3, H, W).
        boxes: (B, 4) int64 on the device of the inputs: top, left, height and width in pixels.

    Returns:
        (B, 3, H, W).
    """
    top, left, height, width = boxes[:, :, None].unbind(1)
    rows = torch.arange(inputs.shape[2], device=inputs.device)
    columns = torch.arange(inputs.shape[3], device=inputs.device)
    in_rows = (rows >= top) & (rows < top + height)
    in_columns = (columns >= left) & (columns < left + width)
    mask = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return inputs * ~mask  # masked_fill would lose channels last
