"""Packed images, see `ianet.packing`, in their file, in memory or on a GPU.

`read` gives batches of images from either place. `place_images` chooses the place for a training,
by the bytes of the images that are used:

| place | rule |
|---|---|
| the GPU | half of its free memory is enough |
| memory | a quarter of the free memory, divided by the workers of the node, is enough |
| the file, mapped into memory | otherwise |

The page cache of the machine holds a mapped file once for all processes, as far as memory suffices.
So a set may be larger than memory.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ianet.packed_file import map_images

AHEAD = 4  # batches that are read before they are needed
MOVED = 256  # images that move to a GPU at a time
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/proc/self/cgroup")
CGROUPS = Path("/sys/fs/cgroup")

Rows = NDArray[np.int64] | slice


class PackedImages:
    """Packed images in their file, which is mapped into memory.

    `images[rows]` is a copy in memory, (B, H, W, 3) uint8. A slice or an array gives the rows.

    Attributes:
        shape: (N, H, W, 3).
        nbytes: of the N images.
    """

    def __init__(self, path: Path, rows: NDArray[np.bool_] | None = None) -> None:
        """
        Args:
            path: the .npy file of `ianet.packing`.
            rows: a mask, one value for each image of the file; all images by default.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file holds no packed images, or the mask does not fit.
        """
        self._array = map_images(path, None if rows is None else len(rows))
        self._rows = np.arange(len(self._array)) if rows is None else np.flatnonzero(rows)
        self.shape = (len(self._rows), *self._array.shape[1:])
        self.nbytes = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Rows) -> Tensor:
        return torch.from_numpy(self._array[self._rows[rows]])


def read(images: Tensor | PackedImages, batches: Iterable[Rows]) -> Iterator[Tensor]:
    """Yield the images of each batch, where the images are.

    A thread reads the next `AHEAD` batches from a file.

    Args:
        images: (N, H, W, 3) uint8.
        batches: the rows of each batch.
    """
    if isinstance(images, PackedImages):
        yield from _read_ahead(images, batches)
        return
    for rows in batches:
        # On a CPU index_select takes a seventh of the time of an index.
        yield (
            images[rows]
            if isinstance(rows, slice)
            else images.index_select(0, send(rows, images.device))
        )


def _read_ahead(images: PackedImages, batches: Iterable[Rows]) -> Iterator[Tensor]:
    queue: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(1) as reader:
        try:
            for rows in batches:
                queue.append(reader.submit(images.__getitem__, rows))
                if len(queue) > AHEAD:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        finally:
            reader.shutdown(cancel_futures=True)


def place_images(
    images: Tensor | PackedImages, device: torch.device, workers: int
) -> Tensor | PackedImages:
    """Return the images on a GPU or in memory if there is room, else where they are.

    Args:
        images: (N, H, W, 3) uint8.
        device: that computes with the images.
        workers: of this node, each of which may hold a copy in memory.
    """
    is_gpu = device.type == "cuda"
    fits = not is_gpu or 2 * images.nbytes <= torch.cuda.mem_get_info(device)[0]
    if isinstance(images, Tensor):
        return images.to(device) if fits else images
    if is_gpu and fits:
        copy = torch.empty(images.shape, dtype=torch.uint8, device=device)
        places = [slice(first, first + MOVED) for first in range(0, len(images), MOVED)]
        for place, pixels in zip(places, read(images, places), strict=True):
            copy[place] = pixels
        return copy
    return images[:] if 4 * workers * images.nbytes <= free_memory() else images


def free_memory() -> int:
    """Return the bytes that this process may still take, of the machine and of its container.

    Pages of files count as free, as the system drops them where needed. A container is a control
    group of version 2, and each group that contains a group may have a limit, too.
    """
    sizes = [1024 * int(number) for number in _find(r"^MemAvailable: *(\d+)", MEMINFO)]
    for name in _find("^0::/(.*)", CGROUP):
        group = CGROUPS / name
        for folder in (group, *group.parents):
            for limit in _find(r"^(\d+)", folder / "memory.max"):  # "max" is no limit
                (used,) = _find(r"^(\d+)", folder / "memory.current")
                (pages,) = _find(r"^inactive_file (\d+)", folder / "memory.stat")
                sizes.append(int(limit) - int(used) + int(pages))
    return min(sizes)


def _find(pattern: str, path: Path) -> list[str]:
    """Return the group of a pattern in each line of a file; nothing of a file that is missing."""
    return re.findall(pattern, path.read_text(), re.MULTILINE) if path.exists() else []


def send(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return the values on the device, without waiting for the device."""
    return torch.from_numpy(values).to(device, non_blocking=True)
