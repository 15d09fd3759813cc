"""The checkpoints of a training: files of the storage, written while the training goes on.

The name of a file holds the epoch and the start of the content's SHA-256. So a reader tells a
damaged file from a whole one.
"""

from __future__ import annotations

import hashlib
import io
import socket
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipeline.cluster.storage import TRAININGS, Storage

CHECKPOINT_COUNT = 2
CHECKPOINT_DIGITS = 16
SUFFIX = ".checkpoint"

State = dict[str, Any]
"""What a training resumes from: "fit", the state of `ianet.training.fit`, and "history"."""


def dump(state: State) -> bytes:
    """The state as bytes, a copy of what it refers to."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def parse(content: bytes) -> State:
    """The state that `dump` wrote, on the CPU."""
    import torch

    # Not to the device of the worker that saved the state: each has a device of its own.
    state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state


class Checkpoints:
    """The checkpoints of one training, of which the last two are kept that are whole."""

    def __init__(self, storage: Storage, name: str, minutes: float) -> None:
        """
        Args:
            storage: of the files.
            name: of the training, its folder there.
            minutes: from one checkpoint to the next.
        """
        self.storage, self.folder, self.minutes = storage, (TRAININGS, name), minutes
        self.pool = ThreadPoolExecutor(max_workers=1)
        self.pending: Future[None] | None = None
        self.damaged: set[str] = set()  # files, which the worker that writes deletes
        self.time = time.monotonic()

    def read(self) -> tuple[State | None, list[str]]:
        """The newest state whose file is whole, None where there is no file; and warnings.

        Raises:
            ValueError: no file is whole.
            OSError: the storage cannot be used.
        """
        names = self._names()
        warnings: list[str] = []
        for name in reversed(names):
            content = self.storage.read(*self.folder, name)
            if content is not None and _digest(content) in name:
                return parse(content), warnings
            self.damaged.add(name)
            warnings.append(f"checkpoint {self._path(name)} is damaged: the one before is taken")
        if names:
            raise ValueError(
                f"the checkpoints in {self.storage.path(*self.folder)} are damaged: delete this "
                "folder, and the training begins anew"
            )
        return None, warnings

    def write(self, state: State, epoch: int, *, last: bool) -> None:
        """Begin to write a state, if the last writing was `minutes` ago or no epoch remains.

        Raises:
            OSError: the writing before failed; the message names the machine and the file.
        """
        now = time.monotonic()
        if not last and now - self.time < 60 * self.minutes:
            return
        self.time = now
        self.finish()
        self.pending = self.pool.submit(self._write, dump(state), epoch)

    def finish(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: see `write`.
        """
        if self.pending is not None:
            self.pending.result()

    def _write(self, content: bytes, epoch: int) -> None:
        name = f"{epoch:06}-{_digest(content)}{SUFFIX}"
        try:
            self.storage.write(content, *self.folder, name)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), self._path(name)) from error
        self.damaged.discard(name)  # a training that repeats an epoch may repeat the content
        names = self._names()
        kept = [each for each in names if each not in self.damaged][-CHECKPOINT_COUNT:]
        for old in set(names).difference(kept):
            self.storage.delete(*self.folder, old)

    def _names(self) -> list[str]:
        names = self.storage.list_names(*self.folder)
        return sorted(name for name in names if name.endswith(SUFFIX))

    def _path(self, name: str) -> str:
        return f"{socket.gethostname()}:{self.storage.path(*self.folder, name)}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:CHECKPOINT_DIGITS]
