"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def build_whole(target: Path) -> Iterator[Path]:
    """Yield a path beside the target, at which a file or a folder is to be written.

    At the end this file or folder gets the target's name. After an error it is deleted. The folder
    of the target is made where there is none.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _name_temporary(target)
    _delete(temporary)  # of a process of the same id that was killed
    try:
        with name_in_errors(target):
            yield temporary
            temporary.replace(target)
    finally:
        _delete(temporary)


def _name_temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{os.getpid()}")


def digest_file(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_output(target: Path, others: Iterable[Path] = ()) -> None:
    """Refuse a file that cannot be written, or that would overwrite another, before the work.

    Args:
        target: of the file.
        others: files and folders that the same work reads or writes.

    Raises:
        ValueError: the target is a folder or one of the others, or as `check_place`; one line.
    """
    check_place(target)
    if target.is_dir():
        raise ValueError(f"{target} is a folder: name a file")
    for other in others:
        if _is_same(target, other):
            raise ValueError(f"{target} would overwrite {other}: name another file")


def check_place(target: Path) -> None:
    """Refuse a place at which no file and no folder can be made, before the work.

    Args:
        target: of the file or the folder. The folder of the target need not exist.

    Raises:
        ValueError: the target lies below a file, or in a folder that must not be written to, or
            its name is too long; one line.
    """
    parent = next(each for each in target.absolute().parents if os.path.lexists(each))
    if not parent.is_dir():
        raise ValueError(f"{target} cannot be written, as {parent} is no folder: name another one")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"{target} cannot be written, as {parent} is read-only: name another one")
    try:
        os.lstat(_name_temporary(target))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{target} cannot be written ({error.strerror}): rename it") from error


def _is_same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)


def delete_leftovers(target: Path) -> None:
    """Delete what killed processes left of a target, which one process at a time writes."""
    for path in target.parent.glob(f".{target.name}.*"):
        _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


@contextmanager
def name_in_errors(target: Path) -> Iterator[None]:
    """Name what is written in an error of the system that names no file, as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def write_whole(target: Path, content: str | bytes) -> None:
    """Write a file that appears whole or not at all; its folder is made where there is none."""
    with build_whole(target) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
