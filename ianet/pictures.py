"""Pictures of one's own: files, folders, archives, lists and arrays, decoded ahead by threads.

A picture becomes the input of a network as in `ianet.packing`: decoded by `ianet.decoding`, and
resized by Pillow's bilinear filter with antialiasing.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from ianet.datasets.listing import IMAGES, read_csv
from ianet.datasets.source import ARCHIVES, Files, open_source, refuse_irregular
from ianet.decoding import decode, to_viewed
from ianet.options import refuse_unknown
from ianet.packing import Size

Labels = Literal["names", "folders", "none"]
Images: TypeAlias = (
    "str | os.PathLike[str] | bytes | Image.Image | NDArray[np.uint8] | Any | Iterable[Images]"
)
"""A path, the content of a file, a picture of Pillow, an array or a tensor (H, W, 3) or
(N, H, W, 3) of uint8, or several of these, also as a 1-D array or a Series of pandas."""

LISTS = (".txt", ".csv")
AHEAD = 3  # batches that are decoded before they are needed
NAME = re.compile(r"(?P<person>-?\d+)_c(?P<camera>\d+)(?!\d)")
"""The start of a name of Market-1501 and DukeMTMC-reID: 0002_c1s1_000451_03.jpg."""
EXPECTED = (
    f"a picture, a folder or an archive ({', '.join(ARCHIVES)}) of pictures, or a list "
    f"({', '.join(LISTS)}) of their paths"
)


class Picture(NamedTuple):
    """A picture that is not decoded yet.

    Attributes:
        path: of the picture, or "image 3" for the third of those that have none.
        open: returns the picture in RGB; ValueError says in one line why there is none.
        person, camera: "" where unknown.
    """

    path: str
    open: Callable[[], Image.Image]
    person: str = ""
    camera: str = ""


class Batch(NamedTuple):
    """Decoded pictures.

    Attributes:
        pictures: the B that were decoded.
        pixels: (B, height, width, 3) uint8, RGB.
        skipped: path to the reason, of the pictures that cannot be decoded.
    """

    pictures: list[Picture]
    pixels: NDArray[np.uint8]
    skipped: dict[str, str]


def find_pictures(images: Images, labels: Labels = "names") -> list[Picture]:
    """Return the pictures that a path, an array or a list of these stands for, in order.

    The pictures of a folder or an archive come in the order of their paths.

    Args:
        images: see `Images`. A list file holds a path a line, or is a CSV file with a column
            `path` and maybe the columns `person` and `camera`. Its paths are relative to its
            folder.
        labels: where person and camera of a file come from. "names": from names like those of
            Market-1501. "folders": the person is the name of the folder, below the folder or
            archive that is given or in the path of a list, and the camera is the start of the
            file's name up to "_", if any. "none": nowhere. A CSV file that names them is believed
            in any case.

    Raises:
        FileNotFoundError: a path does not exist, or a folder or archive holds no picture.
        ValueError: unknown `labels`, an empty path, a file of features, or a damaged archive or
            list, or one that is no regular file.
        TypeError: an object of another type.
    """
    refuse_unknown("labels", labels, get_args(Labels))
    pictures = list(_find(images, labels))
    if not pictures:
        raise ValueError(f"there is no picture: give {EXPECTED}")
    numbers = itertools.count(1)
    return [
        picture if picture.path else picture._replace(path=f"image {next(numbers)}")
        for picture in pictures
    ]


def _find(images: Images, labels: Labels) -> Iterator[Picture]:
    if isinstance(images, str | os.PathLike):
        if not os.fspath(images):  # which pathlib takes for the working directory
            raise ValueError(f"a path is empty: give {EXPECTED}")
        yield from _find_files(Path(images), labels)
    elif isinstance(images, bytes):
        yield Picture("", partial(decode, images))
    elif isinstance(images, Image.Image):
        yield Picture("", partial(_view, images))
    elif hasattr(images, "__array__"):  # NumPy's and torch's
        array = np.asarray(images.cpu() if hasattr(images, "cpu") else images)
        if array.ndim == 1 and array.dtype.kind in "OU":
            yield from _find(array.tolist(), labels)
            return
        for pixels in array if array.ndim == 4 else [array]:
            yield Picture("", partial(_view_array, pixels))
    elif isinstance(images, Iterable):
        for image in images:
            yield from _find(image, labels)
    else:
        raise TypeError(
            f"an image is of type {type(images).__name__}: give a path, bytes, a picture of "
            "Pillow, an array or a tensor"
        )


def _find_files(path: Path, labels: Labels) -> Iterator[Picture]:
    name = path.name.lower()
    if path.is_dir() or (name.endswith(ARCHIVES) and path.exists()):
        yield from _find_images(path, labels)
    elif name.endswith(LISTS) and path.exists():
        yield from _read_list(path, labels)
    elif path.exists():
        from ianet.feature_files import is_feature_file  # which a served model never needs

        if path.is_file() and is_feature_file(path):
            raise ValueError(
                f"{path} holds features by its suffix, and no picture: give {EXPECTED}"
            )
        yield _label(str(path), partial(_decode_file, path), labels, path.name)
    else:
        raise FileNotFoundError(f"{path} does not exist. Expected: {EXPECTED}")


def _find_images(source: Path, labels: Labels) -> Iterator[Picture]:
    """Yield the pictures of a folder or an archive."""
    files = open_source(source, EXPECTED)
    paths = [path for path in files.paths() if path.lower().endswith(IMAGES)]
    if not paths:
        raise FileNotFoundError(f"{source} holds no picture. Expected: {EXPECTED}")
    for path in paths:
        yield _label(f"{source}/{path}", partial(_decode_entry, files, path), labels, path)


def _read_list(source: Path, labels: Labels) -> Iterator[Picture]:
    """Yield the pictures that a list names."""
    refuse_irregular(source)
    try:
        if source.suffix.lower() == ".csv":
            table = read_csv(source.read_bytes())
        else:
            lines = source.read_text(encoding="utf-8-sig").splitlines()
            table = pd.DataFrame({"path": [line.strip() for line in lines if line.strip()]})
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{source} is no list of paths ({reason}): write it anew") from error
    if "path" not in table:
        raise ValueError(f"{source} has the columns {', '.join(table.columns)}, and no column path")
    columns = [name for name in ("path", "person", "camera") if name in table]
    for name in columns:
        if list(table.columns).count(name) > 1:
            raise ValueError(f"{source} has several columns {name}: keep a single one")
    for relative, *values in table[columns].itertuples(index=False, name=None):
        path = source.parent / relative
        picture = _label(str(path), partial(_decode_file, path), labels, relative)
        yield picture._replace(**dict(zip(columns[1:], values, strict=True)))


def _label(path: str, opener: Callable[[], Image.Image], labels: Labels, relative: str) -> Picture:
    """Return a picture with its labels; `relative` is its path below what was given."""
    where = PurePosixPath(relative)
    if labels == "folders":
        start, underscore, _ = where.stem.partition("_")
        return Picture(path, opener, where.parent.name, start if underscore else "")
    match = NAME.match(where.name) if labels == "names" else None
    return Picture(path, opener, **match.groupdict()) if match else Picture(path, opener)


def open_picture(path: str) -> Image.Image:
    """Return the picture at a path of a `Picture`, which may lie in an archive.

    Raises:
        ValueError: there is none, or it cannot be decoded; one line.
    """
    for parent in Path(path).parents:
        if parent.name.lower().endswith(ARCHIVES) and parent.is_file():
            return _decode_entry(_open_archive(parent), Path(path).relative_to(parent).as_posix())
    return _decode_file(Path(path))


@lru_cache(maxsize=4)
def _open_archive(path: Path) -> Files:
    return open_source(path, EXPECTED)


def _decode_file(path: Path) -> Image.Image:
    try:
        refuse_irregular(path)
        return decode(path.read_bytes())
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def _decode_entry(files: Files, path: str) -> Image.Image:
    try:
        return decode(files.read(path))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def _view(image: Image.Image) -> Image.Image:
    try:
        return to_viewed(image)
    except OSError as error:  # of a file that is read now
        raise ValueError(" ".join(str(error).split())) from error


def _view_array(pixels: NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(
            f"it is {pixels.dtype} of shape {pixels.shape}, not uint8 from 0 to 255 of shape "
            "(height, width, 3) in RGB"
        )
    return Image.fromarray(pixels)


def read_batches(pictures: Sequence[Picture], size: Size, batch: int) -> Iterator[Batch]:
    """Yield decoded and resized pictures in order, as many as `batch` at a time.

    Threads decode the next `AHEAD` batches.

    Args:
        pictures: to decode.
        size: height and width of the result.
        batch: pictures that are decoded together; those that cannot be decoded count.
    """
    height, width = size

    def resize(picture: Picture) -> NDArray[np.uint8] | str:
        try:
            image = picture.open()
        except ValueError as error:
            return str(error)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    queue: deque[list[Future[NDArray[np.uint8] | str]]] = deque()
    starts = range(0, len(pictures), batch)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for place in range(len(starts) + AHEAD):
                if place < len(starts):
                    ahead = pictures[starts[place] : starts[place] + batch]
                    queue.append([pool.submit(resize, picture) for picture in ahead])
                if place < AHEAD:
                    continue
                start = starts[place - AHEAD]
                results = [future.result() for future in queue.popleft()]
                pairs = list(zip(pictures[start : start + batch], results, strict=True))
                good = [(picture, value) for picture, value in pairs if not isinstance(value, str)]
                yield Batch(
                    [picture for picture, _ in good],
                    np.stack([value for _, value in good])
                    if good
                    else np.empty((0, height, width, 3), np.uint8),
                    {picture.path: value for picture, value in pairs if isinstance(value, str)},
                )
        finally:
            pool.shutdown(cancel_futures=True)
