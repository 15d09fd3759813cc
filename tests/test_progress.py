"""Progress passes from who computes to who leads by a file of the storage."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.cluster.address import ADDRESS, LOCAL_RAY
from pipeline.cluster.storage import Storage
from pipeline.shell import EVENTS
from pipeline.training.progress import FILE, Follower, ProgressWriter, read_progress

FOLDER = ("trainings", "a.0123")
HISTORY = [{"epoch": number, "loss": 1 / number} for number in (1, 2, 3)]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


class Calls:
    """What a follower hands on."""

    def __init__(self, storage: Storage) -> None:
        self.epochs: list[Any] = []
        self.parts: list[float] = []
        self.follower = Follower(storage, FOLDER, self.epochs.append, self.parts.append)


def test_what_is_written_is_read(storage: Storage) -> None:
    assert read_progress(storage, *FOLDER) is None
    writer = ProgressWriter(storage, *FOLDER)
    for content in ({"history": HISTORY[:1], "part": 0.5}, {"history": HISTORY, "part": 0.0}):
        writer.write(content)
        assert read_progress(storage, *FOLDER) == content
    assert storage.list_names(*FOLDER) == [FILE]


def test_an_epoch_is_written_at_once_and_a_part_seldom(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    writer = ProgressWriter(storage, *FOLDER)
    held = []
    for seconds, write, content in (
        (0.0, writer.write_seldom, "a"),
        (1.9, writer.write_seldom, "b"),  # too early
        (1.9, writer.write, "c"),
        (3.8, writer.write_seldom, "d"),  # too early
        (4.0, writer.write_seldom, "e"),
        (5.9, writer.write_seldom, "f"),  # too early
    ):
        now = 1000 + seconds
        write(content)
        held.append(read_progress(storage, *FOLDER))
    assert held == ["a", "a", "c", "c", "e", "e"]


def test_a_store_is_asked_less_often_than_a_folder() -> None:
    store = Storage("s3://reid/tests?region=us-east-1")
    assert ProgressWriter(store, *FOLDER).interval == 10
    assert Calls(store).follower.poll == 5


def test_a_part_that_cannot_be_written_is_lost_and_an_epoch_is_an_error(
    storage: Storage, tmp_path: Path
) -> None:
    (tmp_path / "trainings").write_text("in the place of the folder")
    writer = ProgressWriter(storage, *FOLDER)
    writer.write_seldom({"history": [], "part": 0.1})
    with pytest.raises(OSError, match="trainings"):
        writer.write({"history": HISTORY, "part": 0.0})
    (tmp_path / "trainings").unlink()
    writer.write_seldom({"history": [], "part": 0.2})  # a failure does not count as a writing
    assert read_progress(storage, *FOLDER) == {"history": [], "part": 0.2}


def progress(history: list[Any], part: float, *warnings: str) -> dict[str, Any]:
    """As a worker writes it."""
    return {"history": history, "part": part, "warnings": warnings, "node": "a"}


def test_each_epoch_is_handed_on_once(storage: Storage) -> None:
    calls = Calls(storage)
    writer = ProgressWriter(storage, *FOLDER)
    for epochs, part in ((0, 0.25), (1, 0.0), (1, 0.5), (1, 0.75), (3, 0.0), (2, 0.5), (3, 0.0)):
        writer.write(progress(HISTORY[:epochs], part))
        calls.follower.look()
    assert calls.epochs == [HISTORY[:1], HISTORY]
    assert calls.parts == [0.25, 1, 1.5, 1.75, 3, 2.5, 3]  # the last but one after a lost worker
    calls.follower.take(HISTORY)
    assert calls.epochs == [HISTORY[:1], HISTORY]
    calls.follower.take([*HISTORY, {"epoch": 4}])
    assert calls.epochs[2:] == [[*HISTORY, {"epoch": 4}]]


def test_a_new_follower_hands_on_what_happened_before(storage: Storage) -> None:
    ProgressWriter(storage, *FOLDER).write(progress(HISTORY, 0.5))
    calls = Calls(storage)
    calls.follower.look()
    calls.follower.look()
    assert calls.epochs == [HISTORY]
    assert calls.parts == [3.5, 3.5]


def test_a_follower_survives_a_missing_and_a_damaged_file_and_an_error(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(storage)
    calls.follower.look()
    content = json.dumps(progress(HISTORY, 0.0)).encode()
    storage.write(content[: len(content) // 2], *FOLDER, FILE)
    calls.follower.look()

    def fail(*parts: str) -> bytes:
        raise OSError("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "read", fail)
        calls.follower.look()
    assert (calls.epochs, calls.parts) == ([], [])
    storage.write(content, *FOLDER, FILE)
    calls.follower.look()
    assert (calls.epochs, calls.parts) == ([HISTORY], [3])


@pytest.mark.parametrize(("address", "events"), [("10.0.0.1:6379", ["a", "b", "a"]), ("", [])])
def test_each_node_of_a_cluster_is_an_event(
    address: str,
    events: list[str],
    storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(ADDRESS, address)
    monkeypatch.delenv(LOCAL_RAY, raising=False)
    monkeypatch.setenv(EVENTS, str(tmp_path / "events.jsonl"))
    (tmp_path / "events.jsonl").touch()
    calls = Calls(storage)
    writer = ProgressWriter(storage, *FOLDER)
    for node in ("a", "a", "b", "a"):
        writer.write({**progress([], 0.5), "node": node})
        calls.follower.look()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"event": "node", "name": name} for name in events
    ]


def test_each_warning_of_a_worker_is_logged_once(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls(storage)
    writer = ProgressWriter(storage, *FOLDER)
    for warnings in ((), ("a is damaged",), ("a is damaged",), ("a is damaged", "b is damaged")):
        writer.write(progress([], 0.5, *warnings))
        calls.follower.look()
    assert caplog.messages == ["a is damaged", "b is damaged"]
