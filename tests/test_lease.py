"""A lease lets one command at a time do a piece of work, in a folder and in an S3 store."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from project import wait_for
from servers import bucket, keys

from pipeline.cluster.lease import Lease
from pipeline.cluster.storage import Storage
from pipeline.config.settings import SettingsError

NAME, WORK, TERM = "trainings/a.b.c.0", "training a.b.c.0", 1.0
FILE = ("leases", "trainings", "a.b.c.0.json")
SCRIPT = f"""
import sys, time
from pipeline.cluster.lease import Lease
from pipeline.cluster.storage import Storage
with Lease(Storage(sys.argv[1]), {NAME!r}, {WORK!r}, float(sys.argv[2])):
    print("begun", flush=True)
    time.sleep(120)
"""
ROOT = Path(__file__).parents[1]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "s3":
        with keys(), bucket() as url:
            # Buckets of one process outlive their server.
            yield Storage(url.replace("/tests", f"/{uuid4().hex}"))
        return
    yield Storage(str(tmp_path / "shared"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a process with a lease, and returns when the process has the lease."""
    processes = []

    def start(storage: Storage, term: float = TERM) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, storage.url, str(term)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def lease(storage: Storage, term: float = TERM) -> Lease:
    return Lease(storage, NAME, WORK, term)


def owner(storage: Storage) -> dict[str, Any]:
    content = storage.read(*FILE)
    assert content is not None
    entry: dict[str, Any] = json.loads(content)
    return entry


def write(storage: Storage, **changes: Any) -> None:
    """Write the lease of an owner on another machine."""
    with lease(storage):
        entry = owner(storage)
    other = {"token": "other", "user": "maria", "host": "far", "process": 7, "folder": "/home/m"}
    storage.write(json.dumps({**entry, **other, **changes}).encode(), *FILE)


def test_the_file_names_the_owner_and_is_deleted_at_the_end(storage: Storage) -> None:
    with lease(storage):
        first = owner(storage)
        assert first["user"] == getpass.getuser()
        assert first["host"] == socket.gethostname()
        assert first["process"] == os.getpid()
        assert first["folder"] == str(Path.cwd())
        assert first["client"] is False
        assert abs(first["renewed"] - time.time()) < 10
        wait_for(lambda: owner(storage)["renewed"] > first["renewed"], "a renewal", 10)
        assert owner(storage)["token"] == first["token"]
    assert storage.read(*FILE) is None
    assert storage.list_names("leases", "trainings") == []


def test_an_error_in_the_context_passes_and_the_file_is_deleted(storage: Storage) -> None:
    with pytest.raises(OSError, match=r"^the work failed$"), lease(storage):
        raise OSError("the work failed")
    assert storage.read(*FILE) is None


@pytest.mark.slow
def test_a_second_owner_is_refused_at_once(
    storage: Storage, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start(storage, 30)
    content = storage.read(*FILE)
    begin = time.monotonic()
    with pytest.raises(SettingsError) as refusal, lease(storage, 30):
        pytest.fail("two owners")
    assert time.monotonic() - begin < 5
    assert str(refusal.value) == (
        f"{getpass.getuser()} is training a.b.c.0 on {socket.gethostname()}, process {process.pid} "
        f"in {tmp_path}: wait for that process, or stop it"
    )
    assert storage.read(*FILE) == content


@pytest.mark.slow
def test_the_lease_of_a_killed_process_is_taken_at_once(
    storage: Storage, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start(storage, 30)
    process.send_signal(signal.SIGKILL)
    # Not waited for: such as a child of a shell that is busy, the process is a zombie.
    wait_for(lambda: Path(f"/proc/{process.pid}/stat").read_text().split()[2] == "Z", "the end", 10)
    for _ in ("zombie", "gone"):
        before = storage.read(*FILE)
        assert before is not None
        begin = time.monotonic()
        with lease(storage, 30):
            assert owner(storage)["process"] == os.getpid()
        assert time.monotonic() - begin < 5
        process.wait()
        storage.write(before, *FILE)


@pytest.mark.slow
def test_the_lease_of_a_killed_client_is_taken_when_ray_has_ended_its_tasks(
    tmp_path: Path,
    start: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ray's server for clients ends them 30 s after the loss, also where both are on a machine."""
    monkeypatch.setattr("pipeline.cluster.lease.CLIENT_GRACE", 2.0)
    storage = Storage(str(tmp_path / "shared"))
    for address, low, high in (("ray://head:10001", TERM + 2, TERM + 6), ("head:6379", 0, TERM)):
        monkeypatch.setenv("RAY_ADDRESS", address)
        process = start(storage)
        monkeypatch.delenv("RAY_ADDRESS")
        assert owner(storage)["client"] is (address == "ray://head:10001")
        process.kill()
        process.wait()
        caplog.clear()
        begin = time.monotonic()
        with caplog.at_level("INFO", "pipeline"), lease(storage):
            assert low <= time.monotonic() - begin < high
        waits = [text for text in caplog.messages if text.endswith(", or was killed: waiting")]
        assert len(waits) == (low > 0)


def test_the_lease_of_a_process_number_that_was_given_anew_is_taken_at_once(
    storage: Storage,
) -> None:
    with lease(storage, 30):
        entry = owner(storage)
    entry |= {"token": "other", "started": entry["started"] - 60}
    storage.write(json.dumps(entry).encode(), *FILE)
    begin = time.monotonic()
    with lease(storage, 30):
        assert owner(storage)["token"] != "other"
    assert time.monotonic() - begin < 5


def test_a_process_of_another_container_of_this_machine_is_not_taken_for_dead(
    tmp_path: Path,
) -> None:
    """Containers may share the name and the start of their machine, but not their processes."""
    storage = Storage(str(tmp_path))
    with lease(storage):
        entry = owner(storage)
    boot, _ = entry["boot"].split(" ")
    entry |= {"token": "other", "boot": f"{boot} pid:[1]", "process": 2**22 + 1}
    storage.write(json.dumps(entry).encode(), *FILE)
    begin = time.monotonic()
    with lease(storage):
        assert time.monotonic() - begin > TERM


def test_the_lease_of_another_machine_is_taken_after_its_term(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    write(storage)
    begin = time.monotonic()
    with caplog.at_level("INFO", "pipeline"), lease(storage):
        assert TERM < time.monotonic() - begin < TERM + 5
        assert owner(storage)["host"] == socket.gethostname()
    [line] = [record.getMessage() for record in caplog.records if "waiting" in record.message]
    assert line == (
        "maria is training a.b.c.0 on far, process 7 in /home/m, or was killed: waiting"
    )


def test_the_lease_of_another_machine_is_refused_as_soon_as_it_is_renewed(
    storage: Storage,
) -> None:
    write(storage)
    entry = owner(storage)

    def renew() -> None:
        storage.write(json.dumps({**entry, "renewed": entry["renewed"] + 1}).encode(), *FILE)

    timer = threading.Timer(1, renew)
    begin = time.monotonic()
    timer.start()
    with (
        pytest.raises(SettingsError, match=r"^maria is training a.b.c.0 on far, process 7 in /ho"),
        lease(storage, 60),
    ):
        pytest.fail("two owners")
    assert 1 < time.monotonic() - begin < 10
    timer.join()
    assert owner(storage)["token"] == "other"


def test_a_lease_of_yesterday_is_taken_at_once(storage: Storage) -> None:
    write(storage, renewed=time.time() - 24 * 60 * 60)
    begin = time.monotonic()
    with lease(storage, 30):
        assert owner(storage)["token"] != "other"
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("content", [b"", b'{"token', b"{}", b"7", b"null", b'{"token": "a"}'])
def test_a_damaged_file_counts_as_expired(tmp_path: Path, content: bytes) -> None:
    storage = Storage(str(tmp_path))
    storage.write(content, *FILE)
    begin = time.monotonic()
    with lease(storage, 30):
        assert owner(storage)["process"] == os.getpid()
    assert time.monotonic() - begin < 5
    assert storage.read(*FILE) is None


def test_the_marker_of_a_machine_that_went_away_keeps_nobody_from_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.cluster.storage.MARKER_TERM", 0.5)
    storage = Storage(str(tmp_path))
    storage.write(b"4194400\nfar\n", *FILE[:-1], f"{FILE[-1]}.lock")
    with lease(storage, 30):
        assert owner(storage)["process"] == os.getpid()
    assert storage.list_names("leases", "trainings") == []


def test_an_owner_whose_lease_was_replaced_stops(storage: Storage) -> None:
    stop = []

    def work() -> None:
        entry = owner(storage)
        other = {"token": "other", "user": "maria", "host": "far", "process": 7, "folder": "/m"}
        storage.write(json.dumps({**entry, **other}).encode(), *FILE)
        begin = time.monotonic()
        try:
            time.sleep(60)  # a wait that only a signal ends
        except KeyboardInterrupt as error:
            stop.append(error)
            assert time.monotonic() - begin < 10
            raise

    with pytest.raises(SettingsError) as loss, lease(storage):
        work()
    assert str(loss.value) == (
        "this command stops training a.b.c.0: maria is training a.b.c.0 on far, process 7 in /m"
    )
    assert loss.value.__cause__ is stop[0]
    assert owner(storage)["token"] == "other"  # the new owner keeps the lease


def test_a_lease_is_confirmed_by_a_renewal_at_once(storage: Storage) -> None:
    with lease(storage, 30) as right:
        first = owner(storage)
        time.sleep(0.01)
        right.confirm()
        second = owner(storage)
        assert second["renewed"] > first["renewed"]
        assert {**second, "renewed": 0} == {**first, "renewed": 0}


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_lease_that_was_lost_is_not_confirmed(storage: Storage, change: str) -> None:
    """As of a command whose machine slept, and which renews the lease in ten seconds only."""
    steps = []

    def lose() -> bytes | None:
        if change == "deleted":
            storage.delete(*FILE)
        else:
            other = {"token": "other", "user": "maria", "host": "far", "process": 7, "folder": "/m"}
            storage.write(json.dumps({**owner(storage), **other}).encode(), *FILE)
        return storage.read(*FILE)

    def work(right: Lease) -> None:
        steps.append(lose())
        right.confirm()
        steps.append(b"the work went on")

    with pytest.raises(SettingsError) as loss, lease(storage, 30) as right:
        work(right)
    holder = "maria is training a.b.c.0 on far, process 7 in /m"
    reason = holder if change == "replaced" else "the lease was deleted"
    assert str(loss.value) == f"this command stops training a.b.c.0: {reason}"
    assert steps == [storage.read(*FILE)]


def test_an_owner_whose_lease_was_deleted_stops(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))

    def work() -> None:
        storage.delete(*FILE)
        time.sleep(60)

    with pytest.raises(SettingsError) as loss, lease(storage):
        work()
    assert str(loss.value) == "this command stops training a.b.c.0: the lease was deleted"


@pytest.mark.slow
def test_a_process_whose_lease_was_replaced_ends_with_the_name_of_the_new_owner(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    storage = Storage(str(tmp_path / "shared"))
    process = start(storage)
    storage.write(json.dumps({**owner(storage), "token": "other", "user": "maria"}).encode(), *FILE)
    _, messages = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "SettingsError: this command stops training a.b.c.0: maria is training" in messages


def test_a_storage_that_does_not_answer_for_a_moment_ends_no_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Storage(str(tmp_path))
    read = storage.read_version
    failures = iter([OSError("no answer"), OSError("no answer")])

    def fail(*parts: str) -> Any:
        for failure in failures:
            raise failure
        return read(*parts)

    with lease(storage):
        first = owner(storage)
        monkeypatch.setattr(storage, "read_version", fail)
        wait_for(lambda: owner(storage)["renewed"] > first["renewed"], "a renewal", 10)
        assert owner(storage)["token"] == first["token"]
    assert storage.read(*FILE) is None
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["the lease of training a.b.c.0 is not renewed: no answer"] * 2


def test_a_store_that_wrote_and_answered_late_has_given_the_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a request is sent again, and then fails its condition."""
    storage = Storage(str(tmp_path))
    write_if = storage.write_if
    answers = iter([False])

    def late(content: bytes, version: str | None, *parts: str) -> bool:
        return write_if(content, version, *parts) and next(answers, True)

    monkeypatch.setattr(storage, "write_if", late)
    with lease(storage):
        assert owner(storage)["process"] == os.getpid()
    assert storage.read(*FILE) is None


def test_a_user_without_a_name_has_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", fail)
    storage = Storage(str(tmp_path))
    with lease(storage):
        assert owner(storage)["user"] == f"user {os.getuid()}"


def race(storage: Storage) -> tuple[list[str], list[str]]:
    """Let two start at once; returns who entered and the message of the other."""
    entered: list[str] = []
    refusals: list[str] = []
    begin, end = threading.Barrier(2), threading.Event()

    def enter() -> None:
        begin.wait()
        try:
            with Lease(Storage(storage.url), NAME, WORK, 30) as right:
                entered.append(right.token)
                end.wait(20)
        except SettingsError as error:
            refusals.append(str(error))
            end.set()

    threads = [threading.Thread(target=enter) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return entered, refusals


def test_of_two_who_start_at_once_one_enters(storage: Storage) -> None:
    for _ in range(3):
        entered, refusals = race(storage)
        assert len(entered) == 1
        assert len(refusals) == 1
        assert f"process {os.getpid()} in {Path.cwd()}: wait for that process" in refusals[0]
        assert storage.read(*FILE) is None


def test_of_two_who_find_an_expired_lease_one_enters(storage: Storage) -> None:
    for _ in range(3):
        storage.write(b"damaged", *FILE)
        entered, refusals = race(storage)
        assert (len(entered), len(refusals)) == (1, 1)
        assert storage.read(*FILE) is None
