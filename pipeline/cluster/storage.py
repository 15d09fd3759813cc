"""Files that the nodes of a Ray cluster share: prepared data, checkpoints, progress and leases.

They lie in a folder that all nodes see, or at a URL that pyarrow opens (s3://, gs://, hdfs://).
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from filelock import FileLock, SoftFileLock, Timeout
from platformdirs import user_cache_path
from pyarrow.fs import (
    FileSelector,
    FileSystem,
    FileType,
    LocalFileSystem,
    PyFileSystem,
    copy_files,
)

from ianet.files import digest_file, name_in_errors, write_whole
from pipeline.cluster.bucket import Bucket, Version
from pipeline.cluster.whole_files import WholeFiles
from pipeline.config.settings import PARAMS, SettingsError
from pipeline.secrecy import hide_secrets

STORAGE = "IANET_STORAGE"  # variable: the storage where params.yaml names none
PROJECT = Path("build")  # in the project's folder, where neither names a storage
TRAININGS, SEARCHES, DATA = "trainings", "searches", "data"
DATA_DIGITS = 32  # of the digest of shared data, in the name of its folder
ATTEMPTS = 5  # to read a file at a URL
MARKER_TERM = 10.0  # seconds without a change, after which the marker of a writer is deleted

Returned = TypeVar("Returned")

log = logging.getLogger(__name__)


class Storage:
    """Files by their path below one folder or URL."""

    def __init__(self, url: str | None) -> None:
        """`url` as `cluster.storage` in params.yaml. None or "" is that of the variable, if any, or
        the project's own folder.

        Raises:
            SettingsError: the URL is no absolute path, of no known kind, or has no bucket.
        """
        self.option = f"{PARAMS}: cluster.storage" if url else STORAGE
        url = url or os.environ.get(STORAGE)
        self.is_local = not url  # the project's own folder
        self.url = url or str(PROJECT.resolve())
        try:
            self.files, root = FileSystem.from_uri(self.url)
        except ValueError as error:
            reason = hide_secrets(str(error))
            raise SettingsError(f"{self.option} is {self.label!r}: {reason}") from error
        if not root:
            raise SettingsError(
                f"{self.option} is {self.label!r}, which names no bucket: name one (s3://bucket)"
            )
        self.root = PurePosixPath(root)
        self.is_folder = isinstance(self.files, LocalFileSystem)
        if self.is_folder:  # a store of another kind shows a file when it is closed
            self.files = PyFileSystem(WholeFiles())

    @property
    def label(self) -> str:
        """The URL for messages, without the keys that it may hold."""
        return hide_secrets(self.url)

    @property
    def holds_password(self) -> bool:
        """Whether the URL, and so each pickle of `files`, holds the secret key of a store."""
        return urlsplit(self.url).password is not None

    def path(self, *parts: str) -> str:
        """As `files` takes it."""
        return str(self.root.joinpath(*parts))

    def read(self, *parts: str) -> bytes | None:
        """Content of a file, None if there is none yet."""

        def content() -> bytes | None:
            try:
                with self.files.open_input_stream(self.path(*parts)) as stream:
                    read: bytes = stream.read()
            except FileNotFoundError:
                return None
            return read

        return _read_patiently(content)

    def write(self, content: bytes, *parts: str) -> None:
        """A file that appears whole or not at all.

        Raises:
            OSError: the storage cannot be used; the message names the file.
        """
        path = self.path(*parts)
        with name_in_errors(Path(path)):
            if self.is_folder:  # an object store has no folders
                self.files.create_dir(str(PurePosixPath(path).parent), recursive=True)
            with self.files.open_output_stream(path) as stream:
                stream.write(content)

    def list_names(self, *parts: str) -> list[str]:
        """Names of the files in a folder, which may not exist yet."""
        infos = self.files.get_file_info(FileSelector(self.path(*parts), allow_not_found=True))
        return [info.base_name for info in infos if info.type == FileType.File]

    def list_folders(self, *parts: str) -> dict[str, float]:
        """Names of the folders in a folder, with the time of the newest file in each, in seconds.

        The folder may not exist yet.
        """
        selector = FileSelector(self.path(*parts), allow_not_found=True, recursive=True)
        newest: dict[str, float] = {}
        root = PurePosixPath(self.path(*parts))
        for info in self.files.get_file_info(selector):
            name = PurePosixPath(info.path).relative_to(root).parts[0]
            seconds = info.mtime.timestamp() if info.mtime else 0.0
            if info.type == FileType.Directory and info.base_name != name:
                continue
            if info.type == FileType.File and PurePosixPath(info.path).parent == root:
                continue
            newest[name] = max(newest.get(name, 0.0), seconds)
        return newest

    def find_newest(self, *parts: str) -> float:
        """The time of the newest file in a folder, in seconds; 0 without any."""
        selector = FileSelector(self.path(*parts), allow_not_found=True, recursive=True)
        infos = self.files.get_file_info(selector)
        return max((info.mtime.timestamp() for info in infos if info.mtime), default=0.0)

    def delete(self, *parts: str) -> None:
        """Delete a file that may not be there any more."""
        with suppress(FileNotFoundError):
            self.files.delete_file(self.path(*parts))

    def delete_folder(self, *parts: str) -> None:
        """Delete a folder that may not be there any more."""
        with suppress(FileNotFoundError):
            self.files.delete_dir(self.path(*parts))

    def read_version(self, *parts: str) -> Version | None:
        """The content of a file with its version; None if there is no such file."""
        if self._bucket is not None:
            return self._bucket.read(self.path(*parts))
        content = self.read(*parts)
        return None if content is None else Version(content, _digest(content))

    def write_if(self, content: bytes, version: str | None, *parts: str) -> bool:
        """Write a file only if its version is still the given one; None stands for no file.

        S3 stores and folders hold to this whoever writes at the same time. Other stores cannot:
        there the later writer wins, and the earlier writer finds the other version when reading.

        Returns:
            Whether the file was written.

        Raises:
            OSError: the storage cannot be used.
        """
        if self._bucket is not None:
            return self._bucket.write_if(content, version, self.path(*parts))
        if self.is_folder:
            path = Path(self.path(*parts))
            path.parent.mkdir(parents=True, exist_ok=True)
            with _mark(Path(f"{path}.lock")):
                return self._write_if(content, version, *parts)
        return self._write_if(content, version, *parts)

    def _write_if(self, content: bytes, version: str | None, *parts: str) -> bool:
        present = self.read_version(*parts)
        if (present.version if present else None) != version:
            return False
        self.write(content, *parts)
        return True

    @cached_property
    def _bucket(self) -> Bucket | None:
        """The bucket of an S3 store, as pyarrow has no conditional writes; None elsewhere."""
        return Bucket(self.url) if urlsplit(self.url).scheme == "s3" else None

    def publish(self, folder: Path, names: Sequence[str]) -> str:
        """Make files of a folder known to all nodes, copied once for each content.

        Args:
            folder: in the project.
            names: of the files.

        Returns:
            The place at which `fetch` finds the files.

        Raises:
            ConnectionError: the storage cannot be reached, or written to.
        """
        if self.is_local:
            return str(folder.resolve())
        digest = hashlib.sha256()
        for name in names:
            digest.update(f"{name} {recall_digest(folder / name)} ".encode())
        target = self.path(DATA, digest.hexdigest()[:DATA_DIGITS])
        with self._explain_errors():
            self.files.create_dir(target, recursive=True)
            for name in names:
                info = self.files.get_file_info(f"{target}/{name}")
                if info.size != (folder / name).stat().st_size:  # missing, or half a copy
                    copy_files(
                        str(folder / name),
                        f"{target}/{name}",
                        source_filesystem=LocalFileSystem(),
                        destination_filesystem=self.files,
                    )
        return target

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = hide_secrets(str(error))
            raise ConnectionError(
                f"{self.option}, {self.label}, cannot be used: {reason}"
            ) from error

    def fetch(self, place: str) -> Path:
        """The folder of shared files, on this node.

        Files at a URL are downloaded to the user's cache (XDG_CACHE_HOME) once, by whichever
        process of the node comes first.
        """
        if self.is_folder:
            return Path(place)
        target = user_cache_path("ianet") / PurePosixPath(place).name
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            temporary = target.with_name(f".{target.name}.part")
            shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
            if not target.exists():
                temporary.mkdir()
                _read_patiently(
                    lambda: copy_files(
                        place,
                        str(temporary),
                        source_filesystem=self.files,
                        destination_filesystem=LocalFileSystem(),
                    )
                )
                temporary.replace(target)
        return target


@contextmanager
def _mark(marker: Path) -> Iterator[None]:
    """Hold a marker, by which one process at a time writes a file.

    A write takes milliseconds. A marker that does not change for `MARKER_TERM` was left by a
    process that was killed, maybe on another machine, and is deleted. Folders that machines share
    may have no locks of the system.
    """
    lock = SoftFileLock(marker, timeout=MARKER_TERM)
    while True:
        before = _identify(marker)
        try:
            lock.acquire()
            break
        except Timeout:
            if before is not None and _identify(marker) == before:
                _delete_marker(marker, before)
    try:
        yield
    finally:
        lock.release()


def _delete_marker(marker: Path, identity: tuple[int, int]) -> None:
    """Delete a marker, unless another process has deleted the marker and made its own."""
    copy = marker.with_name(f"{marker.name}.{uuid4().hex}")
    try:
        marker.rename(copy)
    except FileNotFoundError:
        return
    if _identify(copy) == identity:
        log.warning("%s is deleted: a process that was killed left the file", marker)
    else:
        with suppress(FileExistsError):
            os.link(copy, marker)
    copy.unlink()


def _identify(file: Path) -> tuple[int, int] | None:
    """What tells a file from another of its name; None if there is no file."""
    try:
        state = file.lstat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_mtime_ns


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def recall_digest(path: Path) -> str:
    """SHA-256 of a file of the project, computed once as long as its size and time stay."""
    state = path.stat()
    key = f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"
    cache = PROJECT / "digests" / _digest(key.encode())
    text = cache.read_bytes() if cache.exists() else b""
    if re.fullmatch(rb"[0-9a-f]{64}", text):
        return text.decode()
    digest = digest_file(path)
    write_whole(cache, digest)
    return digest


def _read_patiently(read: Callable[[], Returned]) -> Returned:
    """Read from a store that may be busy.

    pyarrow asks again by itself, but not for a file smaller than the store's answer that it is
    busy.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return read()
        except PermissionError:
            raise
        except OSError:
            time.sleep(0.1 * 2**attempt)
    return read()
