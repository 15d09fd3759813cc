"""Where a data set lies: a folder or a zip, read alike and never unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.zip import ZipFileSystem


def open_source(path: Path, expected: str) -> AbstractFileSystem:
    """The files of a folder or a zip under names relative to it.

    Args:
        path: of the folder or the zip.
        expected: what should lie there and where it is to be had, for the messages.

    Raises:
        FileNotFoundError: nothing lies at `path`.
        ValueError: what lies there is neither a folder nor a whole zip.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. Expected: {expected}")
    if path.is_dir():
        return DirFileSystem(str(path), LocalFileSystem())
    try:
        return ZipFileSystem(str(path))
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(
            f"{path} is damaged or not a zip ({error}): fetch it again. Expected: {expected}"
        ) from error
