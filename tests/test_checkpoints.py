"""Checkpoints by the clock, two of them, and the way back from a damaged one."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.cluster.remote import LostError
from pipeline.cluster.resources import Share
from pipeline.cluster.storage import TRAININGS, Storage
from pipeline.config.settings import SettingsError
from pipeline.training import workers
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.configuration import Place

NAME = "a.b.c.0.0123456789ab"


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Of a training that writes one after each epoch."""
    return Checkpoints(Storage(str(tmp_path)), NAME, minutes=0)


def state(epoch: int) -> dict[str, Any]:
    return {"fit": {"epoch": epoch, "weights": torch.full((3,), float(epoch))}, "history": [epoch]}


def files(checkpoints: Checkpoints) -> list[Path]:
    return sorted(Path(checkpoints.storage.path(TRAININGS, NAME)).iterdir())


def write(checkpoints: Checkpoints, *epochs: int) -> None:
    for epoch in epochs:
        checkpoints.write(state(epoch), epoch, last=False)
    checkpoints.finish()


def test_the_newest_of_the_last_two_is_read(checkpoints: Checkpoints) -> None:
    assert checkpoints.read() == (None, [])
    write(checkpoints, 9, 10, 11)
    assert [file.name[:6] for file in files(checkpoints)] == ["000010", "000011"]
    content, warnings = checkpoints.read()
    assert content is not None
    assert (content["fit"]["epoch"], content["history"], warnings) == (11, [11], [])
    assert content["fit"]["weights"].tolist() == [11.0] * 3


@pytest.mark.parametrize("damage", [b"", b"cut", None])
def test_a_damaged_one_goes_back_to_the_one_before_with_a_warning(
    checkpoints: Checkpoints, damage: bytes | None
) -> None:
    write(checkpoints, 1, 2)
    first, second = files(checkpoints)
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    second.write_bytes(content if damage is None else damage)
    before, [warning] = checkpoints.read()
    assert before is not None
    assert before["fit"]["epoch"] == 1
    assert warning.endswith(f"{second} is damaged: the one before is taken")
    first.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"checkpoints in {first.parent} are damaged: delete "):
        checkpoints.read()


def read_whole(checkpoints: Checkpoints) -> list[tuple[int, float]]:
    """Epoch and weight of each file, all of which are whole."""
    states = [torch.load(file, weights_only=True) for file in files(checkpoints)]
    return [(each["fit"]["epoch"], float(each["fit"]["weights"][0])) for each in states]


@pytest.mark.parametrize("weight", [2.0, 2.5, 0.125], ids=["same", "other", "another"])
def test_a_damaged_one_takes_no_place_of_a_whole_one(
    checkpoints: Checkpoints, weight: float
) -> None:
    """The epoch is repeated, on another machine with other bits: the file has another name."""
    write(checkpoints, 1, 2)
    files(checkpoints)[1].write_bytes(b"cut")
    damaged = files(checkpoints)[1].name
    resumed, repeated = Checkpoints(checkpoints.storage, NAME, minutes=0), state(2)
    resumed.read()
    assert damaged in [file.name for file in files(checkpoints)]  # other workers may read
    repeated["fit"]["weights"].fill_(weight)
    resumed.write(repeated, 2, last=False)
    resumed.finish()
    assert read_whole(checkpoints) == [(1, 1.0), (2, weight)]
    assert (damaged in [file.name for file in files(checkpoints)]) == (weight == 2.0)
    write(resumed, 3)
    assert read_whole(checkpoints) == [(2, weight), (3, 3.0)]


def test_one_is_written_by_the_clock_and_after_the_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    checkpoints = Checkpoints(Storage(str(tmp_path)), NAME, minutes=2)
    for epoch, seconds, last in ((1, 60, False), (2, 121, False), (3, 180, False), (4, 181, True)):
        now = 1000 + seconds
        checkpoints.write(state(epoch), epoch, last=last)
        checkpoints.finish()
    assert [file.name[:6] for file in files(checkpoints)] == ["000002", "000004"]


def test_what_is_written_is_the_state_of_the_call(checkpoints: Checkpoints) -> None:
    live = state(1)
    checkpoints.write(live, 1, last=True)
    live["fit"]["weights"].zero_()  # as the next step of a training does
    checkpoints.finish()
    content, _ = checkpoints.read()
    assert content is not None
    assert content["fit"]["weights"].tolist() == [1.0] * 3


def test_a_storage_that_refuses_is_named_with_the_machine(checkpoints: Checkpoints) -> None:
    folder = Path(checkpoints.storage.path(TRAININGS))
    folder.write_text("a file where the folder would be")
    checkpoints.write(state(1), 1, last=True)
    with pytest.raises(OSError, match=rf"'\S+:{folder}/{NAME}/000001-\w+.checkpoint'"):
        checkpoints.finish()


# A worker that is lost.


def lose(times: int, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let the worker be lost so many times before it returns; the options of each call."""
    calls: list[dict[str, Any]] = []

    def call(function: Any, **options: Any) -> str:
        calls.append(options)
        if len(calls) <= times:
            raise LostError("lost") from RuntimeError("the node died")
        return "result"

    monkeypatch.setattr(workers, "call", call)
    return calls


def run(storage: str = "/tmp") -> Any:
    empty: Any = None
    place = Place(storage, "prepared", Share(1, 2, 1), 5)
    return workers.run_one(empty, place, NAME)


def test_a_worker_that_is_lost_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = lose(workers.MOST_LOSSES, monkeypatch)
    assert run() == "result"
    # Ray itself tries nothing again: it would do so after every mistake.
    assert calls == [{"num_cpus": 2, "num_gpus": 1, "max_retries": 0}] * (workers.MOST_LOSSES + 1)
    assert caplog.messages == [f"training {NAME} resumes with a new worker: the node died"] * 3


def test_a_worker_that_is_lost_too_often_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    lose(100, monkeypatch)
    with pytest.raises(OSError, match=rf"^training {NAME} lost its worker 4 times: lost$"):
        run()


def test_a_store_that_fails_is_tried_again_and_a_full_disk_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call(function: Any, **options: Any) -> str:
        calls.append(options)
        if len(calls) == 1:
            raise OSError("503 Slow Down")
        return "result"

    calls: list[Any] = []
    pauses: list[float] = []
    monkeypatch.setattr(workers, "call", call)
    monkeypatch.setattr(workers, "time", SimpleNamespace(sleep=pauses.append))
    with pytest.raises(OSError, match="503 Slow Down"):
        run()
    assert pauses == []
    calls.clear()
    assert run("s3://reid/tests?region=us-east-1") == "result"
    assert pauses == [4]


def test_a_mistake_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def call(function: Any, **options: Any) -> None:
        calls.append(options)
        raise ValueError("a batch is too small")

    calls: list[Any] = []
    monkeypatch.setattr(workers, "call", call)
    with pytest.raises(SettingsError, match=r"^a batch is too small$"):
        run()
    assert len(calls) == 1
