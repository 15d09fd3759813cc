"""Where the nodes of a Ray cluster find prepared data, and leave checkpoints and progress: a folder
that all of them see, or a URL that pyarrow opens (s3://, gs://, hdfs://).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from platformdirs import user_cache_path
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from pipeline.settings import PARAMS, SettingsError

PROJECT = Path("build")  # in the project's folder, where params.yaml names no other
TRAINING, SEARCHES, DATA = "training", "searches", "data"
DIGITS = 32  # of the digest of what is shared, in its name


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

    def path(self, *parts: str) -> str:
        """As `files` takes it."""
        return str(self.root.joinpath(*parts))

    def read(self, *parts: str) -> bytes | None:
        """Content of a file, None if there is none yet."""
        path = self.path(*parts)
        if self.files.get_file_info(path).type != FileType.File:
            return None
        with self.files.open_input_stream(path) as stream:
            content: bytes = stream.read()
        return content

    def write(self, content: bytes, *parts: str) -> None:
        """A file that appears whole or not at all."""
        path = self.path(*parts)
        # What is no folder shows a file when it is closed, and would copy one that is moved.
        part = f"{path}.part" if self.is_folder else path
        self.files.create_dir(str(PurePosixPath(path).parent), recursive=True)
        with self.files.open_output_stream(part) as stream:
            stream.write(content)
        if self.is_folder:
            self.files.move(part, path)

    def folders(self, *parts: str) -> list[str]:
        """Names of the folders in a folder, which may not exist yet."""
        inside = self.files.get_file_info(FileSelector(self.path(*parts), allow_not_found=True))
        return [one.base_name for one in inside if one.type == FileType.Directory]

    def delete(self, *parts: str) -> None:
        """Delete a folder."""
        self.files.delete_dir(self.path(*parts))

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
            if not own.exists():
                part = own.with_name(f".{own.name}.{os.getpid()}")
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                copy_files(
                    place,
                    str(part),
                    source_filesystem=self.files,
                    destination_filesystem=LocalFileSystem(),
                )
                part.replace(own)
        return own
