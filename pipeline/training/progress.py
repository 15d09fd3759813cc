"""The progress of a training or search: a JSON file of the storage.

Who computes writes the file, and who leads reads it. So both may be on machines that reach nothing
but the storage, and a leader that was killed finds all that happened meanwhile.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pipeline.cluster.address import is_cluster
from pipeline.cluster.storage import Storage
from pipeline.shell import emit

FILE = "progress.json"
INTERVAL = 2.0  # seconds from one writing to the next within an epoch
INTERVAL_OF_STORE = 10.0  # likewise, where each writing is a request to a store
POLL = 0.5  # seconds from one reading to the next
POLL_OF_STORE = 5.0

Report = dict[str, Any]

log = logging.getLogger(__name__)


class ProgressWriter:
    """Writes what happens, not more often than the storage allows."""

    def __init__(self, storage: Storage, *folder: str) -> None:
        self.storage, self.folder = storage, folder
        self.interval = INTERVAL if storage.is_folder else INTERVAL_OF_STORE
        self.last = 0.0

    def write(self, content: Any) -> None:
        """Write at once.

        Raises:
            OSError: the storage cannot be used.
        """
        self.storage.write(json.dumps(content).encode(), *self.folder, FILE)
        self.last = time.monotonic()

    def write_seldom(self, content: Any) -> None:
        """Write unless the last writing was a moment ago; what is for a display may be lost."""
        if time.monotonic() - self.last > self.interval:
            with suppress(OSError):
                self.write(content)


def read_progress(storage: Storage, *folder: str) -> Any:
    """What was written last; None where nothing was.

    Raises:
        OSError: the storage cannot be used.
    """
    content = storage.read(*folder, FILE)
    return None if content is None else json.loads(content)


class Follower:
    """Reads the progress of a training, and hands on new epochs, warnings and nodes."""

    def __init__(
        self,
        storage: Storage,
        folder: tuple[str, ...],
        on_epoch: Callable[[list[Report]], None],
        on_part: Callable[[float], None],
    ) -> None:
        """
        Args:
            storage, folder: of the progress.
            on_epoch: receives the reports of all epochs, when one is new.
            on_part: receives the epochs that are done, with the fraction of the one that is not.
        """
        self.storage, self.folder = storage, folder
        self.on_epoch, self.on_part = on_epoch, on_part
        self.poll = POLL if storage.is_folder else POLL_OF_STORE
        self.epochs = 0
        self.warnings: set[str] = set()
        self.node = ""

    def look(self) -> None:
        """Read once; a storage that does not answer is asked again by the next look."""
        progress = None
        with suppress(OSError, ValueError):
            progress = read_progress(self.storage, *self.folder)
        if progress is not None:
            for warning in set(progress["warnings"]) - self.warnings:
                log.warning("%s", warning)
                self.warnings.add(warning)
            node = progress.get("node", "")  # which an earlier version did not write
            if is_cluster() and node != self.node:
                self.node = node
                emit("node", name=node)
            self.take(progress["history"])
            self.on_part(len(progress["history"]) + progress["part"])

    def take(self, history: list[Report]) -> None:
        """Hand on a history that is longer than before."""
        if len(history) > self.epochs:
            self.epochs = len(history)
            self.on_epoch(history)
