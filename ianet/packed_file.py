"""The file of packed images, see `ianet.packing`, mapped into memory. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def map_images(path: Path, count: int | None = None) -> NDArray[np.uint8]:
    """Return the images, (N, H, W, 3) uint8; pages are read when they are used.

    Args:
        path: the .npy file.
        count: of the images that the file must hold; any by default.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file holds no packed images, or another number of images.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except (EOFError, ValueError) as error:
        raise ValueError(f"{path} is damaged: pack the images again ({error})") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
        raise ValueError(
            f"{path} holds {array.dtype} of shape {array.shape}: packed images are uint8 of "
            "shape (N, H, W, 3)"
        )
    if count is not None and count != len(array):
        raise ValueError(f"{path} holds {len(array)} images, not {count}: pack the images again")
    return np.asarray(array)
