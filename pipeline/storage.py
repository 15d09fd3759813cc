"""Where the nodes of a Ray cluster find prepared data, and leave checkpoints and progress: a folder
that all of them see, or a URL that pyarrow opens (s3://, gs://, hdfs://).
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem as FsspecFileSystem
from platformdirs import user_cache_path
from pyarrow import PythonFile
from pyarrow.fs import (
    FileSelector,
    FileSystem,
    FileType,
    FSSpecHandler,
    LocalFileSystem,
    PyFileSystem,
    copy_files,
)

from pipeline.settings import PARAMS, SettingsError

PROJECT = Path("build")  # in the project's folder, where params.yaml names no other
TRAINING, SEARCHES, DATA = "training", "searches", "data"
DIGITS = 32  # of the digest of what is shared, in its name
ATTEMPTS = 5  # to read what lies at a URL

Returned = TypeVar("Returned")


class Storage:
    """Files by their path below one folder or URL."""

    def __init__(self, url: str | None) -> None:
        """`url` as `cluster.storage` in params.yaml; None is the project's own folder.

        Raises:
            SettingsError: it is neither an absolute path nor a URL of a kind that is known.
        """
        self.is_projects = url is None
        self.url = url or str(PROJECT.resolve())
        try:
            self.files, root = FileSystem.from_uri(self.url)
        except ValueError as error:
            raise SettingsError(f"{PARAMS}: cluster.storage is {url!r}: {error}") from error
        self.root = PurePosixPath(root)
        self.is_folder = isinstance(self.files, LocalFileSystem)
        if self.is_folder:  # what is none shows a file when it is closed
            self.files = PyFileSystem(WholeFiles())

    def path(self, *parts: str) -> str:
        """As `files` takes it."""
        return str(self.root.joinpath(*parts))

    def read(self, *parts: str) -> bytes | None:
        """Content of a file, None if there is none yet."""
        path = self.path(*parts)
        if self.files.get_file_info(path).type != FileType.File:
            return None

        def content() -> bytes:
            with self.files.open_input_stream(path) as stream:
                read: bytes = stream.read()
            return read

        return _patiently(content)

    def write(self, content: bytes, *parts: str) -> None:
        """A file that appears whole or not at all."""
        path = self.path(*parts)
        self.files.create_dir(str(PurePosixPath(path).parent), recursive=True)
        with self.files.open_output_stream(path) as stream:
            stream.write(content)

    def names(self, *parts: str) -> list[str]:
        """Names of the files in a folder, which may not exist yet."""
        return self._inside(FileType.File, *parts)

    def folders(self, *parts: str) -> list[str]:
        """Names of the folders in a folder, which may not exist yet."""
        return self._inside(FileType.Directory, *parts)

    def _inside(self, kind: FileType, *parts: str) -> list[str]:
        inside = self.files.get_file_info(FileSelector(self.path(*parts), allow_not_found=True))
        return [one.base_name for one in inside if one.type == kind]

    def clear(self, folder: str, names: str) -> None:
        """Delete the folders there whose names are of a pattern. Their work is done: one that
        cannot be deleted costs no more than its place.
        """
        try:
            for name in self.folders(folder):
                if re.fullmatch(names, name):
                    self.files.delete_dir(self.path(folder, name))
        except OSError as error:
            print(f"{self.path(folder)} keeps what is no longer needed: {error}", file=sys.stderr)

    def shared(self, folder: Path, names: Sequence[str]) -> str:
        """Make files of a folder known to all nodes.

        Args:
            folder: in the project.
            names: of the files; under a name of its own for each content they are copied once.

        Returns:
            What `fetched` finds them by.

        Raises:
            ConnectionError: the storage cannot be reached, or written to.
        """
        if self.is_projects:
            return str(folder.resolve())
        digest = hashlib.sha256()
        for name in names:
            with (folder / name).open("rb") as file:
                digest.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()} ".encode())
        target = self.path(DATA, digest.hexdigest()[:DIGITS])
        with self._reached():
            self.files.create_dir(target, recursive=True)
            for name in names:
                info = self.files.get_file_info(f"{target}/{name}")
                if info.size != (folder / name).stat().st_size:  # it lacks, or is half there
                    copy_files(
                        str(folder / name),
                        f"{target}/{name}",
                        source_filesystem=LocalFileSystem(),
                        destination_filesystem=self.files,
                    )
        return target

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConnectionError(
                f"{PARAMS}: cluster.storage, {self.url}, cannot be used: {error}"
            ) from error

    def fetched(self, place: str) -> Path:
        """The folder of files that are shared, on this node. What lies at a URL is downloaded to
        the user's cache (XDG_CACHE_HOME) once, by whichever process of the node comes first.
        """
        if self.is_folder:
            return Path(place)
        own = user_cache_path("ianet") / PurePosixPath(place).name
        own.parent.mkdir(parents=True, exist_ok=True)
        with own.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            part = own.with_name(f".{own.name}.part")
            shutil.rmtree(part, ignore_errors=True)  # of one that was killed
            if not own.exists():
                part.mkdir()
                _patiently(
                    lambda: copy_files(
                        place,
                        str(part),
                        source_filesystem=self.files,
                        destination_filesystem=LocalFileSystem(),
                    )
                )
                part.replace(own)
        return own


def _patiently(read: Callable[[], Returned]) -> Returned:
    """Read from a store that may be busy. pyarrow asks again by itself, but not for a file that is
    smaller than the store's answer that it is busy.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return read()
        except OSError:
            time.sleep(0.1 * 2**attempt)
    return read()


class WholeFiles(FSSpecHandler):
    """Files of a folder, each of which appears whole or not at all.

    Ray writes what it knows of a training or search over what it knew before. A driver that was
    killed while it did would not go on: of half a state, Ray starts again or gives up.
    """

    def __init__(self) -> None:
        super().__init__(FsspecFileSystem())

    def open_output_stream(self, path: str, metadata: Any) -> PythonFile:
        return PythonFile(_WholeFile(path), mode="w")


class _WholeFile:
    """Written beside its place, and moved there when it is closed, unless writing failed."""

    def __init__(self, path: str) -> None:
        self.path, self.part = Path(path), Path(f"{path}.{uuid4().hex}.part")
        self.file = self.part.open("wb")
        self.whole = True

    @property
    def closed(self) -> bool:
        return self.file.closed

    def tell(self) -> int:
        return self.file.tell()

    def write(self, content: Any) -> None:
        self.whole = False  # until this, too, is written
        self.file.write(content)
        self.whole = True

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        if self.closed:
            return
        try:
            self.file.close()
            if self.whole:
                self.part.replace(self.path)
        finally:
            self.part.unlink(missing_ok=True)
