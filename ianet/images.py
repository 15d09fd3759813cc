"""Images packed once, then served from memory and augmented by the batch on the device.

Layout: (N, H, W, 3) uint8, RGB. Seen as (N, 3, H, W) that is torch's channels-last memory
format, in which convolutions on a CPU run up to twice as fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

# ImageNet's, in RGB, as every weights file of torchvision expects.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)

Size = tuple[int, int]
"""Height and width in pixels."""


def pack(
    opened: Callable[[str], Image.Image], paths: Sequence[str], targets: dict[Size, Path]
) -> Iterator[int]:
    """Decode every image once, resize it to every size asked and write one array a size.

    The arrays appear under their names when all images are in them, or not at all.

    Args:
        opened: decodes the image of a path, called by threads; a reader's `Listing` has it.
        paths: of the N images; row i of an array is `paths[i]`.
        targets: size to the .npy file that is written, (N, H, W, 3) uint8, resized bilinearly
            with antialiasing by Pillow, hence the same on every machine.

    Yields:
        How many images are done, after each of them.

    Raises:
        ValueError: an image that cannot be decoded, by name.
    """
    unfinished = {
        size: target.with_name(f".{target.name}.{os.getpid()}.part")
        for size, target in targets.items()
    }
    try:
        arrays = {
            (height, width): np.lib.format.open_memmap(
                part, mode="w+", dtype=np.uint8, shape=(len(paths), height, width, 3)
            )
            for (height, width), part in unfinished.items()
        }

        def fill(row: int) -> None:
            image = opened(paths[row])
            for (height, width), array in arrays.items():
                array[row] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

        # Pillow decodes and resizes without the interpreter's lock: threads use every core.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                for done, _ in enumerate(pool.map(fill, range(len(paths))), start=1):
                    yield done
            finally:
                pool.shutdown(cancel_futures=True)
        for array in arrays.values():
            array.flush()
        for size, part in unfinished.items():
            part.replace(targets[size])
    finally:
        for part in unfinished.values():
            part.unlink(missing_ok=True)


def load(path: Path, rows: NDArray[np.bool_] | None = None) -> Tensor:
    """Packed images in memory, (N, H, W, 3) uint8; only the rows of a mask are read."""
    array = np.load(path, mmap_mode="r")
    return torch.from_numpy(np.array(array if rows is None else array[rows]))


def normalized(images: Tensor, flipped: Tensor | None = None) -> Tensor:
    """A batch as a network takes it.

    Args:
        images: (B, H, W, 3) uint8, on any device.
        flipped: (B,) bool, which images are mirrored left to right; none by default.

    Returns:
        (B, 3, H, W) float32, channels last in memory, ImageNet's mean and deviation removed.
    """
    if flipped is not None:
        images = torch.where(flipped[:, None, None, None], images.flip(2), images)
    mean = torch.tensor(MEAN, device=images.device) * 255
    deviation = torch.tensor(DEVIATION, device=images.device) * 255
    return ((images - mean) / deviation).permute(0, 3, 1, 2)
