"""A folder as pyarrow and Ray take it, in which each file appears whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem
from pyarrow import PythonFile
from pyarrow.fs import FSSpecHandler


class WholeFiles(FSSpecHandler):
    """Files of a folder, each of which appears whole or not at all.

    Ray overwrites its state of a training or search in place. A driver that is killed meanwhile
    would leave half a state, of which Ray starts again or gives up.
    """

    def __init__(self) -> None:
        super().__init__(LocalFileSystem())

    def open_output_stream(self, path: str, metadata: Any) -> PythonFile:
        return PythonFile(_WholeFile(path), mode="w")


class _WholeFile:
    """Written beside its place, and moved there when it is closed, unless writing failed."""

    def __init__(self, path: str) -> None:
        self.path, self.temporary = Path(path), Path(f"{path}.{uuid4().hex}.part")
        self.file = self.temporary.open("wb")
        self.is_whole = True

    @property
    def closed(self) -> bool:
        return self.file.closed

    def tell(self) -> int:
        return self.file.tell()

    def write(self, content: Any) -> None:
        self.is_whole = False  # until this, too, is written
        self.file.write(content)
        self.is_whole = True

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        if self.closed:
            return
        try:
            self.file.close()
            if self.is_whole:
                self.temporary.replace(self.path)
        finally:
            self.temporary.unlink(missing_ok=True)
