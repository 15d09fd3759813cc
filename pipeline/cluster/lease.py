"""A lease: of all commands that share a storage, one at a time does a piece of work.

The lease is a file of the storage, renewed by its owner as long as the work lasts. A lease that is
not renewed for `TERM` seconds has expired, and another command may take the lease. A process of
this machine that has ended leaves an expired lease at once. But Ray keeps the tasks of a lost
client outside the cluster (ray://) for `CLIENT_GRACE` seconds, so a client's lease lasts longer.

A store without conditional writes may let two commands take a lease at once. Then the command whose
file the other has overwritten stops at its next renewal. A command whose machine slept may find its
loss late. So a command confirms its lease before it writes a result or deletes checkpoints.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import psutil

from pipeline.cluster.address import is_client
from pipeline.cluster.storage import Storage
from pipeline.config.settings import SettingsError

TERM = 30.0  # seconds from a renewal to the end of the lease
CLIENT_GRACE = 30.0  # seconds for which Ray keeps the tasks of a client outside that was lost
CLOCKS = 300.0  # seconds by which the clocks of two machines may differ
LEASES = "leases"
BOOT = Path("/proc/sys/kernel/random/boot_id")
PROCESSES = Path("/proc/self/ns/pid")  # a container has process ids of its own
FIELDS = {"token", "user", "host", "boot", "process", "started", "folder", "renewed"}

log = logging.getLogger(__name__)


class Lease:
    """The right to a piece of work, while the context lasts.

    Raises, when the context is entered or left:
        SettingsError: another command does this work; the message names its owner.
        OSError: the storage cannot be used.
    """

    def __init__(self, storage: Storage, name: str, work: str, term: float = TERM) -> None:
        """
        Args:
            storage: that all who may do the work share.
            name: of the work, a path below the folder of leases.
            work: for messages, such as "training synthetic.base.quick.0".
            term: seconds from a renewal to the end of the lease.
        """
        self.storage, self.work, self.term = storage, work, term
        self.path = (LEASES, f"{name}.json")
        self.token = uuid4().hex
        self.loss: str | None = None
        self._done = threading.Event()
        self._renewals = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Lease:
        self._acquire()
        self._renewals.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._renewals.join(self.term)
        if self.loss is not None:
            raise SettingsError(self.loss) from error
        try:
            entry = self.storage.read_version(*self.path)
            if entry is not None and _parse(entry.content).get("token") == self.token:
                self.storage.delete(*self.path)
        except OSError as failure:
            log.warning("the lease of %s stays until it expires: %s", self.work, failure)

    def _content(self) -> bytes:
        owner = {
            "token": self.token,
            "user": _user(),
            "folder": str(Path.cwd()),
            "renewed": time.time(),
            "client": is_client(),
            "work": self.work,
            **_this_process(),
        }
        return json.dumps(owner).encode()

    def _acquire(self) -> None:
        """Take the lease when it is free, or when it expires."""
        first: bytes | None = None
        since = time.monotonic()
        while True:
            entry = self.storage.read_version(*self.path)
            if entry is None:
                if self.storage.write_if(self._content(), None, *self.path):
                    return
            else:
                owner = _parse(entry.content)
                if owner.get("token") == self.token:  # a store answered late, and was asked again
                    return
                client = bool(owner.get("client"))  # which an earlier version did not write
                expired = (_is_dead(owner) and not client) or not is_renewed(entry.content)
                if first is None and not expired:
                    first, since = entry.content, time.monotonic()
                    if _is_alive(owner):
                        raise SettingsError(self._refusal(owner))
                    log.info("%s, or was killed: waiting", self._holder(owner))
                elif first is not None and not expired and entry.content != first:
                    raise SettingsError(self._refusal(owner))
                term = self.term + (CLIENT_GRACE if client else 0.0)
                if expired or time.monotonic() - since > term:
                    if self.storage.write_if(self._content(), entry.version, *self.path):
                        return
                    continue
            time.sleep(0.2)

    def confirm(self) -> None:
        """Renew the lease, before a step that would disturb another owner.

        A command that slept longer than the term may have lost the lease, and not know yet.

        Raises:
            SettingsError: another command has the lease, or the lease was deleted.
            OSError: the storage cannot be used.
        """
        if not self._renew_once():
            raise SettingsError(self.loss)

    def _renew(self) -> None:
        while not self._done.wait(self.term / 3):
            try:
                held = self._renew_once()
            except OSError as error:
                log.warning("the lease of %s is not renewed: %s", self.work, error)
                continue
            if not held:
                if not self._done.is_set():  # else the context ends anyway
                    # A signal ends a wait of the main thread at once.
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def _renew_once(self) -> bool:
        """Write the lease with the time of now; False, with a `loss`, if the lease is not ours."""
        entry = self.storage.read_version(*self.path)
        owner = {} if entry is None else _parse(entry.content)
        if owner.get("token") == self.token and entry is not None:
            if self.storage.write_if(self._content(), entry.version, *self.path):
                return True
            entry = self.storage.read_version(*self.path)
            owner = {} if entry is None else _parse(entry.content)
        if owner.get("token") == self.token:
            return True
        holder = self._holder(owner) if "token" in owner else "the lease was deleted"
        self.loss = f"this command stops {self.work}: {holder}"
        return False

    def _holder(self, owner: dict[str, Any]) -> str:
        work = owner.get("work", self.work)  # which an earlier version did not write
        return (
            f"{owner['user']} is {work} on {owner['host']}, process {owner['process']} in "
            f"{owner['folder']}"
        )

    def _refusal(self, owner: dict[str, Any]) -> str:
        return f"{self._holder(owner)}: wait for that process, or stop it"


def _user() -> str:
    """The user's name, or the number of a user without a name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _this_process() -> dict[str, Any]:
    boot = BOOT.read_text().strip() if BOOT.exists() else ""
    return {
        "host": socket.gethostname(),
        "boot": f"{boot} {PROCESSES.readlink()}" if PROCESSES.exists() else boot,
        "process": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def _parse(content: bytes) -> dict[str, Any]:
    """The owner of a lease; of a damaged file one whose lease has expired."""
    with suppress(ValueError):
        owner = json.loads(content)
        if isinstance(owner, dict) and owner.keys() >= FIELDS:
            return owner
    return {"renewed": 0.0}


def is_renewed(content: bytes) -> bool:
    """Whether a lease was renewed lately, by the clock of this machine."""
    return bool(time.time() - _parse(content)["renewed"] < CLOCKS)


def _is_here(owner: dict[str, Any]) -> bool:
    here = _this_process()
    return all(owner.get(name) == here[name] for name in ("host", "boot"))


def _is_alive(owner: dict[str, Any]) -> bool:
    """Whether the owner is a process of this machine that runs."""
    return _is_here(owner) and _runs(owner)


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine and has ended."""
    return _is_here(owner) and not _runs(owner)


def _runs(owner: dict[str, Any]) -> bool:
    try:
        process = psutil.Process(owner["process"])
        return (
            process.status() != psutil.STATUS_ZOMBIE
            and abs(process.create_time() - owner["started"]) < 1
        )
    except psutil.NoSuchProcess:
        return False
