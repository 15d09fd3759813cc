"""What a command does before the workers of a training start."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pandas as pd
import pytest
from stand_ins import replace_lease

from ianet.options import NetworkOptions
from ianet.training.recipe import Recipe
from pipeline.cluster.lease import LEASES
from pipeline.cluster.resources import Share
from pipeline.cluster.storage import TRAININGS, Storage
from pipeline.config.settings import SettingsError, load
from pipeline.plan.plan import Plan
from pipeline.plan.runs import RECORD, TABLE, Run, prepared_files
from pipeline.plan.sources import Code
from pipeline.training import launch
from pipeline.training.configuration import Configuration
from pipeline.training.worker import Result

RUN = Run("synthetic", "base", "quick", 0)
SETTINGS = load()
RECIPE = Recipe(height=64, width=32, epochs=1, batch=2, lr=0.1, weight_decay=0.0)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights in a project with prepared data; every node has one core."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "share", lambda *_, **__: Share(1, 1, 0))
    monkeypatch.setattr(launch, "check_visible", lambda *_: None)
    RUN.prepared.mkdir(parents=True)
    for name in {*prepared_files("64x32"), *prepared_files("128x64")}:
        (RUN.prepared / name).write_text(name)
    (tmp_path / "weights.pt").write_bytes(b"of ImageNet")
    return tmp_path / "weights.pt"


def find_place(storage: Storage, weights: str) -> Any:
    configuration = Configuration(
        "synthetic", "64x32", False, 0, NetworkOptions(weights=weights), RECIPE
    )
    return launch.find_place(storage, RUN, configuration, SETTINGS)


def test_initial_weights_go_where_the_workers_find_them(weights: Path, tmp_path: Path) -> None:
    shared = Storage(str(tmp_path / "shared by all nodes"))
    place = find_place(shared, "weights.pt")
    weights.unlink()  # on this machine only
    place_of_folder, name = place.weights
    folder = shared.fetch(place_of_folder)
    assert folder.is_relative_to(tmp_path / "shared by all nodes")
    assert (folder / name).read_bytes() == b"of ImageNet"
    assert find_place(shared, "imagenet").weights is None


def test_other_initial_weights_are_another_training(weights: Path) -> None:
    """Of the same name: a training that was stopped resumes from no state of the others."""
    configuration = Configuration(
        "synthetic", "64x32", False, 0, NetworkOptions(weights="weights.pt"), RECIPE
    )
    before = configuration.digest(RUN.prepared, {})
    assert configuration.digest(RUN.prepared, {}) == before
    weights.write_bytes(b"of Market-1501")
    assert configuration.digest(RUN.prepared, {}) != before


@pytest.mark.parametrize("name", prepared_files("64x32"))
def test_other_data_is_another_training(weights: Path, name: str) -> None:
    """Also other photos below the same names, which the table does not tell."""
    configuration = Configuration("synthetic", "64x32", False, 0, NetworkOptions(), RECIPE)
    before = configuration.digest(RUN.prepared, {})
    (RUN.prepared / name).write_text("other data")
    assert configuration.digest(RUN.prepared, {}) != before


def test_the_code_of_a_training_has_its_block() -> None:
    """So a training that was stopped to mend a block does not resume the weights of before."""
    used = {"block": "ia", "after": {"stage3": {}}}
    assert "ianet.blocks.ia" in Code().digest_training(used)
    assert "ianet.blocks.ia" not in Code().digest_training({})
    assert "ianet.retrieval" in Code().digest_trials(used)  # scores a trial, and trains nothing
    assert "ianet.retrieval" not in Code().digest_training(used)


def test_other_code_is_another_training(weights: Path) -> None:
    configuration = Configuration("synthetic", "64x32", False, 0, NetworkOptions(), RECIPE)
    first = configuration.digest(RUN.prepared, {"ianet.blocks.ia": "1"})
    assert configuration.digest(RUN.prepared, {"ianet.blocks.ia": "2"}) != first


def test_a_model_gives_its_weights(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    weights.rename(tmp_path / "model/model.safetensors")
    shared = Storage(str(tmp_path / "shared by all nodes"))
    folder, name = find_place(shared, "model").weights
    assert (shared.fetch(folder) / name).read_bytes() == b"of ImageNet"


def test_a_missing_file_of_weights_is_named_before_a_worker_starts(weights: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"weights file other\.pt of network base is miss"):
        find_place(Storage(None), "other.pt")


@pytest.mark.parametrize(
    ("splits", "cameras", "hold_out", "message"),
    [
        (["query", "gallery"], [1, 2], False, "synthetic has no image in train: score networks of"),
        (["train", "train", "train"], [1, 1, 1], True, "none of the 20 held-out identities of"),
        (["train", "train", "train"], [1, 2, 1], True, None),
        (["train", "train", "train"], [1, 1, 1], False, None),
    ],
)
def test_a_data_set_that_cannot_be_trained_on_or_scored_is_refused(
    splits: list[str],
    cameras: list[int],
    hold_out: bool,
    message: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    held_out = ["query", "gallery", ""][: len(splits)]
    table = pd.DataFrame(
        {"path": "a", "person": 1, "camera": cameras, "split": splits, "held_out": held_out}
    )
    RUN.prepared.mkdir(parents=True)
    table.to_parquet(RUN.prepared / TABLE)
    if message is None:
        launch.check_parts(RUN, SETTINGS, hold_out=hold_out)
    else:
        with pytest.raises(SettingsError, match=message):
            launch.check_parts(RUN, SETTINGS, hold_out=hold_out)


LEASE = (LEASES, TRAININGS, f"{RUN.key}.json")


def train(
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, bytes],
    meanwhile: Callable[[Storage], None] = lambda storage: None,
) -> None:
    """Lead a training whose worker at once returns these files, and what happens meanwhile."""
    commits = ["of the training"]

    def run_workers(configuration: Any, place: Any, name: str, *rest: Any) -> Result:
        storage = Storage(SETTINGS.cluster.storage)
        storage.write(b"state", TRAININGS, name, "checkpoint")
        commits.append("made during the training")
        meanwhile(storage)
        return Result([{"epoch": 1, "loss": 0.5}], {"device": "CPU"}, files)

    monkeypatch.setattr(launch, "Code", lambda: Mock(digest_training=lambda options: {}))
    monkeypatch.setattr(launch, "find_commit", lambda: commits[-1])
    monkeypatch.setattr(launch, "check_parts", lambda *_, **__: None)
    monkeypatch.setattr(launch, "find_place", lambda *_: None)
    monkeypatch.setattr(launch, "open_training_run", lambda *_: nullcontext(Mock()))
    monkeypatch.setattr(launch, "run_workers", run_workers)
    launch.train(RUN, Plan(SETTINGS, {}), lambda: None)


def test_the_end_of_a_training_leaves_those_of_other_configurations(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(SETTINGS.cluster.storage)
    other = (TRAININGS, f"{RUN.key}.0123456789ab", "checkpoint")
    storage.write(b"of another configuration", *other)
    train(monkeypatch, {"weights.safetensors": b"weights"})
    assert storage.read(*other) == b"of another configuration"
    assert list(storage.list_folders(TRAININGS)) == [other[1]]
    assert (RUN.folder / "weights.safetensors").read_bytes() == b"weights"
    record = json.loads((RUN.folder / RECORD).read_text())
    assert record["environment"] == {"device": "CPU"}
    assert record["commit"] == "of the training"


LOSS = f"this command stops training {RUN.key}: maria is training {RUN.key} on far, process 7 in /m"


def list_checkpoints(storage: Storage) -> list[bytes | None]:
    folders = storage.list_folders(TRAININGS)
    return [storage.read(TRAININGS, folder, "checkpoint") for folder in folders]


def test_a_training_that_lost_its_lease_writes_no_run_and_deletes_no_checkpoint(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(SETTINGS.cluster.storage)
    train(monkeypatch, {"weights.safetensors": b"of before"})
    with pytest.raises(SettingsError) as loss:
        train(monkeypatch, {"weights.safetensors": b"new"}, partial(replace_lease, path=LEASE))
    assert str(loss.value) == LOSS
    assert (RUN.folder / "weights.safetensors").read_bytes() == b"of before"
    assert list_checkpoints(storage) == [b"state"]
    assert json.loads(storage.read(*LEASE) or b"")["user"] == "maria"


def test_a_training_that_lost_its_lease_while_it_wrote_deletes_no_checkpoint(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(SETTINGS.cluster.storage)
    write_run = launch.write_run

    def lose(*arguments: Any) -> None:
        write_run(*arguments)
        replace_lease(storage, LEASE)

    monkeypatch.setattr(launch, "write_run", lose)
    with pytest.raises(SettingsError) as loss:
        train(monkeypatch, {"weights.safetensors": b"new"})
    assert str(loss.value) == LOSS
    assert list_checkpoints(storage) == [b"state"]


def test_a_full_disk_leaves_no_half_of_a_run_and_the_run_of_before(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(monkeypatch, {"weights.safetensors": b"of before"})

    def write_bytes(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    monkeypatch.setattr(launch, "_identify", lambda *_: "id")
    with pytest.raises(OSError, match=re.escape(str(RUN.folder))):
        train(monkeypatch, {"weights.safetensors": b"new"})
    assert [path.name for path in RUN.folder.parent.iterdir()] == [RUN.key]
    assert (RUN.folder / "weights.safetensors").read_bytes() == b"of before"
