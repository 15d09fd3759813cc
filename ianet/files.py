"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """Yield a path beside the target, at which a file or a folder is to be written.

    At the end this file or folder gets the target's name. After an error it is deleted. The folder
    of the target is made where there is none.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    _delete(temporary)  # of a process of the same id that was killed
    try:
        with naming(target):
            yield temporary
            temporary.replace(target)
    finally:
        _delete(temporary)


def delete_leftovers(target: Path) -> None:
    """Delete what killed processes left of a target, which one process at a time writes."""
    for path in target.parent.glob(f".{target.name}.*"):
        _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Name what is written in an error of the system that names no file, as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def write_whole(target: Path, content: str | bytes) -> None:
    """Write a file that appears whole or not at all; its folder is made where there is none."""
    with whole(target) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
