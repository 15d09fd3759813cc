"""The images of a data set, packed once into an array that `ianet.images` reads.

Packing is a module without torch, apart from `ianet.images`: packing does not need torch, and a
training does not depend on the code that packed its images.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ianet.files import build_whole, delete_leftovers

TASK = 16  # images that a thread packs at a time

Size = tuple[int, int]
"""Height and width in pixels."""


def pack(
    open_image: Callable[[str], Image.Image], paths: Sequence[str], size: Size, target: Path
) -> Iterator[int]:
    """Decode and resize every image, and write all images as one array.

    The array appears under its name when all images are complete, or not at all.

    Args:
        open_image: decodes the image of a path; threads call this function. A reader's `Listing`
            has such a function, `open`.
        paths: of the N images; row i of the array is `paths[i]`.
        size: of the images in the array.
        target: the .npy file that is written, (N, H, W, 3) uint8, resized bilinearly with
            antialiasing by Pillow, hence the same on every machine.

    Yields:
        The number of complete images, after each image.

    Raises:
        ValueError: an image that cannot be decoded, by name.
    """
    height, width = size
    shape = (len(paths), height, width, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}

    def write_rows(temporary: Path, start: int, first: int) -> range:
        """Write the rows of a task; return the numbers of rows after each of its images."""
        task = paths[first : first + TASK]
        with temporary.open("r+b") as file:
            file.seek(start + first * height * width * 3)
            for path in task:
                image = open_image(path).resize((width, height), Image.Resampling.BILINEAR)
                file.write(image.tobytes())
        return range(first + 1, first + len(task) + 1)

    delete_leftovers(target)  # DVC packs one array at a time
    with build_whole(target) as temporary:
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
        # Pillow decodes and resizes without the interpreter's lock: threads use every core. Each
        # thread writes its rows, which is faster than a single thread that writes all rows. The
        # file is not mapped into memory. A mapped array counts as memory of the process and costs
        # a page fault for every 4 KB, and a full disk kills the process.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                tasks = range(0, len(paths), TASK)
                for numbers in pool.map(partial(write_rows, temporary, start), tasks):
                    yield from numbers
            finally:
                pool.shutdown(cancel_futures=True)
