"""The images of a data set, packed once into an array that `ianet.images` reads.

Apart from there: a training does not depend on how its images were packed, nor packing on torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

QUEUED = 512  # images that wait to be packed or written: 60 MB at 256x128 and 128x64

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

    def resized(path: str) -> list[bytes]:
        image = opened(path)
        return [
            image.resize((width, height), Image.Resampling.BILINEAR).tobytes()
            for height, width in targets
        ]

    try:
        # Pillow decodes and resizes without the interpreter's lock: threads use every core.
        with ExitStack() as opened_files, ThreadPoolExecutor(os.cpu_count()) as pool:
            files = []
            for (height, width), part in unfinished.items():
                # Written in order, not mapped: a mapped array counts as memory of the process,
                # costs a page fault for every 4 KB, and a full disk kills the process.
                file = opened_files.enter_context(part.open("wb"))
                shape = (len(paths), height, width, 3)
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                files.append(file)
            try:
                for start in range(0, len(paths), QUEUED):
                    done = pool.map(resized, paths[start : start + QUEUED])
                    for row, pixels in enumerate(done, start + 1):
                        for file, own in zip(files, pixels, strict=True):
                            file.write(own)
                        yield row
            finally:
                pool.shutdown(cancel_futures=True)
        for size, part in unfinished.items():
            part.replace(targets[size])
    finally:
        for part in unfinished.values():
            part.unlink(missing_ok=True)
