"""The images of a data set, packed once into an array that `ianet.images` reads.

Apart from there: a training does not depend on how its images were packed, nor packing on torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

TASK = 16  # images that a thread packs at a time

Size = tuple[int, int]
"""Height and width in pixels."""


def pack(
    opened: Callable[[str], Image.Image], paths: Sequence[str], size: Size, target: Path
) -> Iterator[int]:
    """Decode and resize every image, and write all of them as one array.

    The array appears under its name when all images are in it, or not at all.

    Args:
        opened: decodes the image of a path, called by threads; a reader's `Listing` has it.
        paths: of the N images; row i of the array is `paths[i]`.
        size: of the images there.
        target: the .npy file that is written, (N, H, W, 3) uint8, resized bilinearly with
            antialiasing by Pillow, hence the same on every machine.

    Yields:
        How many images are done, after each of them.

    Raises:
        ValueError: an image that cannot be decoded, by name.
    """
    height, width = size
    part = target.with_name(f".{target.name}.part")  # DVC packs one at a time
    shape = (len(paths), height, width, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}

    def packed(first: int) -> range:
        """Write some rows from the first on; how many images are done after each of them."""
        some = paths[first : first + TASK]
        with part.open("r+b") as file:
            file.seek(start + first * height * width * 3)
            for path in some:
                image = opened(path).resize((width, height), Image.Resampling.BILINEAR)
                file.write(image.tobytes())
        return range(first + 1, first + len(some) + 1)

    try:
        with part.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
        # Pillow decodes and resizes without the interpreter's lock: threads use every core. Each
        # writes its own rows, which is faster than handing them to one that writes all. Written,
        # not mapped: a mapped array counts as memory of the process, costs a page fault for every
        # 4 KB, and a full disk kills the process.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                for done in pool.map(packed, range(0, len(paths), TASK)):
                    yield from done
            finally:
                pool.shutdown(cancel_futures=True)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
