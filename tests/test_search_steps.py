"""What a search does with its pipeline, its lease, its storage and its state, without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from ray import cloudpickle
from stand_ins import replace_lease
from test_search import a_setting

from pipeline.cluster.lease import LEASES
from pipeline.cluster.resources import Share
from pipeline.cluster.storage import SEARCHES, TRAININGS, Storage
from pipeline.config.settings import SettingsError
from pipeline.plan.plan import Plan, load_plan
from pipeline.search import __main__ as command
from pipeline.search import run, trial
from pipeline.search.trial import ResumableASHA, TrialProgress
from pipeline.training.configuration import Place

LEASE = (LEASES, SEARCHES, "sigma.json")
SIGMA = "network.after.stage3.sigma.0"
LOSS = "this command stops searching sigma: maria is searching sigma on far, process 7 in /m"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan()


def fill(storage: Storage, key: str) -> None:
    """Files of each folder that a search has in the storage."""
    for parts in ((SEARCHES, key), (SEARCHES, f"{key}.progress"), (TRAININGS, f"{key}.best")):
        storage.write(b"state", *parts, "file")


def search(
    plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch, loss: str | None
) -> tuple[Storage, list[str]]:
    """Run a search whose steps return at once, and whose lease is replaced at a step.

    Returns:
        The storage, and the names of the steps that were begun, in their order.
    """
    storage = Storage(str(folder))
    steps: list[str] = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(run, "Storage", lambda _: storage)

    def step(name: str, value: Any = None) -> Any:
        def call(*_: Any, **__: Any) -> Any:
            steps.append(name)
            if name == loss:
                replace_lease(storage, LEASE)
            return value

        return call

    scores = SimpleNamespace(cameras="respect", summary=lambda: {"mAP": 0.5})
    configuration = Mock(digest=lambda *_: "0123456789abcdef")
    place = Place(str(folder), "prepared", Share(1, 1, 0), 5)
    delete_folder = storage.delete_folder

    def delete(*parts: str) -> None:
        steps.append("delete")
        delete_folder(*parts)

    monkeypatch.setattr(storage, "delete_folder", delete)
    monkeypatch.setattr(run, "_check", lambda *_: configuration)
    monkeypatch.setattr(run, "asdict", lambda options: {})
    monkeypatch.setattr(run, "Code", lambda: Mock(digest_trials=lambda options: {}))
    monkeypatch.setattr(run, "SearchDisplay", lambda *_: nullcontext())
    monkeypatch.setattr(run, "SearchFollower", lambda *_: Mock())
    monkeypatch.setattr(run, "open_search_run", lambda *_: nullcontext(Mock()))
    monkeypatch.setattr(run, "share", lambda *_, **__: Share(1, 1, 0))
    monkeypatch.setattr(run, "read_progress", lambda *_: [{"values": {SIGMA: 5}}])
    monkeypatch.setattr(run.results, "table", lambda trials: None)
    monkeypatch.setattr(run.results, "best_trial", lambda *_: 0)
    monkeypatch.setattr(run.results, "summarise", lambda table: "1 trial")
    monkeypatch.setattr(run, "find_place", step("place", place))
    monkeypatch.setattr(run, "wait_for", step("trials"))
    monkeypatch.setattr(run, "_test_best", step("test", scores))
    monkeypatch.setattr(run, "_write", step("write"))
    monkeypatch.setattr(run, "send_safely", step("send"))
    fill(storage, "sigma.0123456789ab")
    if loss is None:
        run.run_search("sigma", plan, lambda: None)
    else:
        with pytest.raises(SettingsError) as error:
            run.run_search("sigma", plan, lambda: None)
        assert str(error.value) == LOSS
    return storage, steps


STEPS = ["place", "trials", "test", "write", "send", "delete", "delete", "delete"]


def test_a_search_deletes_its_folders_at_its_end(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, steps = search(plan, tmp_path, monkeypatch, None)
    assert steps == STEPS
    assert storage.list_folders(SEARCHES) == storage.list_folders(TRAININGS) == {}


@pytest.mark.parametrize(
    ("loss", "last"), [("place", "place"), ("trials", "test"), ("test", "test"), ("send", "send")]
)
def test_a_search_that_lost_its_lease_begins_and_writes_and_deletes_nothing(
    loss: str, last: str, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, steps = search(plan, tmp_path, monkeypatch, loss)
    assert steps == STEPS[: STEPS.index(last) + 1]
    assert len(storage.list_folders(SEARCHES)) == 2
    assert len(storage.list_folders(TRAININGS)) == 1
    assert json.loads(storage.read(*LEASE) or b"")["user"] == "maria"


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """The file of DVC that the command `make search` finds, and what the command does then."""
    steps: list[str] = []
    file = tmp_path / "dvc.yaml"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["search", "sigma"])
    monkeypatch.setattr(command, "load_plan", lambda: SimpleNamespace(search=lambda name: None))
    monkeypatch.setattr(command, "render", lambda plan: {file: "stages: ä"})
    monkeypatch.setattr(command, "write", lambda plan: steps.append("write"))
    monkeypatch.setattr(command, "run_command", lambda *_: steps.append("dvc"))
    monkeypatch.setattr(command, "make_page", lambda: steps.append("page"))
    return file, steps


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("stages: ä".encode(), ["dvc", "page"]),
        (b"stages: \xe4", ["write", "dvc", "page"]),  # no UTF-8
        (b"other", ["write", "dvc", "page"]),
        (None, ["write", "dvc", "page"]),
    ],
)
def test_a_pipeline_of_other_bytes_is_written_anew(
    content: bytes | None, expected: list[str], pipeline: tuple[Path, list[str]]
) -> None:
    file, steps = pipeline
    if content is not None:
        file.write_bytes(content)
    command.main()
    assert steps == expected


def test_a_pipe_in_the_place_of_the_pipeline_is_told(
    pipeline: tuple[Path, list[str]], make_pipe: Callable[[Path], None]
) -> None:
    file, steps = pipeline
    make_pipe(file)
    with pytest.raises(SettingsError) as error:
        command.main()
    assert str(error.value) == (f"{file} is no regular file: delete it, and run the command again")
    assert steps == []


STORE = "bucket/x?region=us-east-1"


def save(url: str) -> bytes:
    """What Ray Tune writes into the storage of a search, beside its numbers, as pickles."""
    progress = replace(a_setting(Path("/")), place=Place(url, "prepared", Share(1, 1, 0), 5))
    saved = (TrialProgress(progress), ResumableASHA(progress), Storage(url).files)
    return b"".join(map(cloudpickle.dumps, saved))


def test_what_ray_tune_saves_holds_no_key_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUSER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SEKRIT-VALUE")
    saved = save(f"s3://{STORE}")
    assert b"bucket/x" in saved
    assert b"AKIAUSER" not in saved
    assert b"SEKRIT" not in saved


def test_a_search_whose_storage_would_save_a_password_is_refused(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://AKIAUSER:SEKRIT-VALUE@{STORE}"
    assert b"SEKRIT-VALUE" in save(url)
    cluster = plan.settings.cluster.model_copy(update={"storage": url})
    monkeypatch.setattr(plan, "settings", plan.settings.model_copy(update={"cluster": cluster}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "_check", lambda *_: Mock(digest=lambda *_: "0123456789abcdef"))
    monkeypatch.setattr(run, "asdict", lambda options: {})
    monkeypatch.setattr(run, "Code", lambda: Mock(digest_trials=lambda options: {}))
    monkeypatch.setattr(run, "Lease", lambda *_: pytest.fail("the storage is used"))
    with pytest.raises(SettingsError) as error:
        run.run_search("sigma", plan, lambda: None)
    assert str(error.value) == (
        f"params.yaml: cluster.storage, s3://{STORE}, holds a password, which Ray Tune would write "
        "into this storage: name no password there, and set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY on each machine"
    )


class Store:
    """A checkpoint in a store that answers with an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    @contextmanager
    def as_directory(self) -> Iterator[str]:
        raise self.error
        yield ""


@pytest.mark.parametrize(
    "error",
    [
        OSError("AWS Error SLOW_DOWN: Please reduce your request rate."),
        PermissionError("access denied"),
        TimeoutError("no answer"),
    ],
)
def test_a_store_that_is_busy_fails_a_trial_so_that_ray_tune_tries_again(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[Any] = []
    monkeypatch.setattr(trial.tune, "get_checkpoint", lambda: Store(error))
    monkeypatch.setattr(trial.tune, "report", lambda *values, **_: reports.append(values))
    monkeypatch.setattr(trial, "Training", lambda *_: pytest.fail("the trial begins anew"))
    with pytest.raises(OSError, match=f"^{error}$") as raised:
        trial.run_trial({"training.lr": 0.01}, a_setting(tmp_path))
    assert raised.value is error
    assert reports == []


def test_a_trial_whose_checkpoint_is_gone_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = Store(FileNotFoundError("/reid/searches/sigma.0/checkpoint_000001"))
    monkeypatch.setattr(trial.tune, "get_checkpoint", lambda: gone)
    assert trial._read_state() == (
        None,
        "begins anew, as its checkpoint is gone or damaged: "
        "/reid/searches/sigma.0/checkpoint_000001",
    )
