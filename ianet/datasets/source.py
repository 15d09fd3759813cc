"""The source of a data set: a folder, a zip or a tar, read alike and never unpacked.

Names in an archive are never names on the disk, so no name in an archive can reach another file.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import stat
import tarfile
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from PIL import Image

from ianet.decoding import decode

Opener = Callable[[str], Image.Image]
"""Path of an image in a reader's table to the image in RGB."""

COMPRESSIONS = {
    ".tar.gz": gzip,
    ".tgz": gzip,
    ".tar.bz2": bz2,
    ".tbz2": bz2,
    ".tar.xz": lzma,
    ".txz": lzma,
}
"""Suffix of a compressed tar, and the module that decompresses the tar."""
TARS = (".tar", *COMPRESSIONS)
ARCHIVES = (".zip", *TARS)
BLOCK = 512  # bytes of a tar, of which the last blocks are zeros
MEMBER_BYTES = 2**29  # of a file in an archive, many times as large as any image or list
ARCHIVE_BYTES = 2**30
ARCHIVE_RATIO = 100
"""An archive may hold `ARCHIVE_BYTES`, or so many times its own size if that is more.

Images are compressed already. Only archives that are made to fill a disk or the memory hold more.
"""


DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    UnicodeDecodeError,
    RuntimeError,  # of a zip of an unknown version, or a tar whose headers continue each other
)
"""What damaged archives raise, apart from OSError."""


class Files(Protocol):
    """The files of a source by "/"-separated relative paths, for any number of threads."""

    def paths(self) -> list[str]:
        """Return the paths of all files, sorted, without hidden files and those that macOS adds.

        Raises:
            OSError: a folder cannot be read.
            ValueError: a path is not UTF-8.
        """
        ...

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            OSError: the file is missing or damaged.
        """
        ...

    def size(self, path: str) -> int:
        """Return the bytes that `read` returns of a path of `paths`."""
        ...


def open_source(path: Path, expected: str) -> Files:
    """Return the files of a folder or of an archive, one of `ARCHIVES`.

    Args:
        path: of the folder or the archive.
        expected: what the source should hold and who distributes the data, for the messages.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: the archive is no regular file, is of another kind, is damaged, or decompresses
            to more than any data set; or it holds links, or names that point outside or are not
            UTF-8.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. Expected: {expected}")
    if path.is_dir():
        return Folder(path)
    refuse_irregular(path)
    name = path.name.lower()
    kind, archive = ("tar", Tar) if name.endswith(TARS) else ("zip", Zip)
    try:
        return archive(path)
    except (*DAMAGE, OSError) as error:
        if not name.endswith(ARCHIVES):
            raise ValueError(
                f"{path} is neither a folder nor an archive of a known kind "
                f"({', '.join(ARCHIVES)}): unpack it. Expected: {expected}"
            ) from error
        raise ValueError(
            f"{path} is damaged or not a {kind} ({error}): fetch it again. Expected: {expected}"
        ) from error


def image_opener(files: Files) -> Opener:
    """Return a function that decodes an image of a source, or raises ValueError."""

    def open_image(path: str) -> Image.Image:
        try:
            return decode(files.read(path))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the image {path} cannot be decoded ({error}): replace the image, or fetch the "
                "data set again"
            ) from error

    return open_image


class Folder:
    """The files of a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def paths(self) -> list[str]:
        paths = sorted(
            path
            for folder, names in self._folders()
            for name in names
            if _is_visible(path := (folder / name).relative_to(self._root).as_posix())
        )
        for path in paths:
            refuse_undecodable(path, str(self._root))
        return paths

    def _folders(self) -> Iterator[tuple[Path, list[str]]]:
        """Yield each real folder once, with its files: a link may lead back to a folder above.

        Links come after all folders, so that no folder has the path of a link to the folder.
        """
        seen: set[tuple[int, int]] = set()
        starts = [self._root]
        for start in starts:  # which grows by the links
            for folder, subfolders, names in os.walk(start, onerror=_raise):
                entry = Path(folder).stat()
                if (entry.st_dev, entry.st_ino) in seen:
                    subfolders.clear()
                    continue
                seen.add((entry.st_dev, entry.st_ino))
                yield Path(folder), names
                subfolders.sort()
                starts += filter(Path.is_symlink, (Path(folder) / name for name in subfolders))

    def read(self, path: str) -> bytes:
        refuse_irregular(self._root / path)
        return (self._root / path).read_bytes()

    def size(self, path: str) -> int:
        return (self._root / path).stat().st_size


class Zip:
    """The files of a zip."""

    def __init__(self, path: Path) -> None:
        self._archive = zipfile.ZipFile(path)
        self._members: dict[str, zipfile.ZipInfo] = {}
        held = 0
        for member in self._archive.infolist():
            name = member.filename.replace("\\", "/")  # some tools of Windows write its separator
            refuse_outside(name, str(path))
            is_folder = name.endswith("/")
            name = PurePosixPath(name).as_posix()  # without the "./" that some tools write
            if member.flag_bits & 1:
                raise ValueError(f"{path} is encrypted: decrypt it first")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise ValueError(f"{path} holds {name}, a link: pack the files themselves")
            held += member.file_size  # zipfile reads no more of a member than this
            _refuse_large(path, name, member.file_size, held)
            if is_folder:
                continue
            if self._members.get(name, member).CRC != member.CRC:
                raise ValueError(
                    f"{path} holds {name} twice, with different contents: pack a single one"
                )
            self._members[name] = member

    def paths(self) -> list[str]:
        return sorted(filter(_is_visible, self._members))

    def read(self, path: str) -> bytes:
        try:
            return self._archive.read(self._members[path])
        except (KeyError, NotImplementedError, *DAMAGE) as error:
            raise OSError(str(error)) from error

    def size(self, path: str) -> int:
        return self._members[path].file_size


class Tar:
    """The files of a tar.

    A tar has no table of contents, so the tar is read once to find its files. A compressed tar can
    be read in a single order only. So such a tar is first decompressed into a temporary file
    without a name, which takes the size of the tar in $TMPDIR.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("rb")
        weakref.finalize(self, self._file.close)
        for suffix, module in COMPRESSIONS.items():
            if path.name.lower().endswith(suffix):
                with module.open(self._file) as content:
                    self._file = tempfile.TemporaryFile()  # noqa: SIM115, as it outlives __init__
                    weakref.finalize(self, self._file.close)
                    while part := content.read(2**20):
                        self._file.write(part)
                        _refuse_large(path, "", 0, self._file.tell())
                self._file.seek(0)
        self._places: dict[str, tuple[int, int]] = {}  # of each file: offset and size in bytes
        members, end = _list_members(self._file)
        for member in members:
            refuse_outside(member.name, str(path))
            refuse_undecodable(member.name, str(path))
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise ValueError(
                    f"{path} holds {member.name}, a link or another thing that is no plain "
                    "file: pack the files themselves (tar --dereference "
                    "--hard-dereference)"
                )
            _refuse_large(path, member.name, member.size, member.size)
            name = PurePosixPath(member.name).as_posix()  # without the "./" of `tar -c .`
            self._places[name] = (member.offset_data, member.size)
        # tarfile takes a damaged header for the end, without a word.
        self._file.seek(end)
        rest = self._file.read(2**20)
        if len(rest) < BLOCK or any(rest):
            raise tarfile.ReadError(f"no end follows its {len(self._places)} files")

    def paths(self) -> list[str]:
        return sorted(filter(_is_visible, self._places))

    def read(self, path: str) -> bytes:
        if path not in self._places:
            raise FileNotFoundError(f"there is no {path} in it")
        offset, size = self._places[path]
        return os.pread(self._file.fileno(), size, offset)

    def size(self, path: str) -> int:
        return self._places[path][1]


def _list_members(file: IO[bytes]) -> tuple[list[tarfile.TarInfo], int]:
    """Return the members of a tar, and the offset of its end."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            return list(archive), archive.offset
    except ValueError as error:  # of a header with a text in place of a number
        raise tarfile.ReadError(f"invalid header: {error}") from error


def refuse_outside(path: str, where: str) -> None:
    """Raise ValueError if a relative path does not stay beneath its folder."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"{where} names {path}, which points outside: use relative paths beneath")


def refuse_irregular(path: Path) -> None:
    """Raise ValueError if a path leads to what is no regular file, such as a pipe or a device.

    A reader would wait for ever, or read without end.

    Raises:
        OSError: there is no such file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} is no regular file: put the file itself there")


def _refuse_large(archive: Path, member: str, size: int, held: int) -> None:
    """Raise ValueError if a member of an archive, or all that the archive holds, is too large."""
    if size > MEMBER_BYTES:
        raise ValueError(
            f"{archive} holds {member} of {size:,} bytes: no file of a data set has more than "
            f"{MEMBER_BYTES:,}, so fetch the archive from another place, or unpack it"
        )
    most = max(ARCHIVE_BYTES, ARCHIVE_RATIO * archive.stat().st_size)
    if held > most:
        raise ValueError(
            f"{archive} decompresses to more than {most:,} bytes, so it is made to fill a disk: "
            "fetch it from another place, or unpack it"
        )


def refuse_undecodable(path: str, where: str) -> None:
    """Raise ValueError if a path is not UTF-8: tables and messages hold paths as text."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        text = path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise ValueError(f"{where} holds {text}, which is not UTF-8: rename it") from error


def _raise(error: OSError) -> None:
    raise error


def _is_visible(path: str) -> bool:
    return not any(name.startswith(".") or name == "__MACOSX" for name in path.split("/"))
