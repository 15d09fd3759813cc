"""`python -m pipeline.clean` deletes what unfinished work left, and nothing that is in use."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import clean
from pipeline.cluster.lease import Lease
from pipeline.cluster.storage import Storage
from pipeline.config.settings import SettingsError

DAY = 24 * 60 * 60
FILES = {
    "trainings/synthetic.base.quick.0.0123456789ab/progress.json": 0.0,
    "trainings/synthetic.base.quick.1.0123456789ab/progress.json": 3,
    "trainings/synthetic.base.quick.10.0123456789ab/progress.json": 3,
    "trainings/sigma.ba9876543210.best/id": 3,
    "searches/sigma.ba9876543210/trial/state": 10,
    "searches/sigma-2.ba9876543210/progress.json": 10,
    "data/00112233/table.parquet": 10,
}  # by the days since they changed


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A storage with folders of different ages, that of the working directory's params.yaml."""
    params = (Path(__file__).parents[1] / "params.yaml").read_text()
    folder = tmp_path / "shared"
    assert params.count("storage: null") == 1
    (tmp_path / "params.yaml").write_text(params.replace("storage: null", f"storage: {folder}"))
    monkeypatch.chdir(tmp_path)
    now = time.time()
    for name, days in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        while path != folder:
            os.utime(path, (now - days * DAY - 1,) * 2)
            path = path.parent
    return Storage(str(folder))


@pytest.fixture
def run(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """The command, which returns its lines, with paths below the storage."""

    def run(*arguments: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["clean", *arguments])
        clean.main()
        return capsys.readouterr().out.replace(f"{storage.root}/", "").splitlines()

    return run


def remaining(storage: Storage) -> set[str]:
    root = Path(storage.path())
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


FOLDERS = sorted({"/".join(name.split("/")[:2]) for name in FILES})


def test_it_lists_and_deletes_nothing(run: Callable[..., list[str]], storage: Storage) -> None:
    lines = run()
    assert sorted(lines[:-1]) == FOLDERS
    assert len(lines) == 8
    assert lines[-1] == "7 folders would be deleted (--yes)"
    assert remaining(storage) == set(FILES)


def test_it_deletes(run: Callable[..., list[str]], storage: Storage) -> None:
    lines = run("--yes")
    assert sorted(lines[:-1]) == FOLDERS
    assert lines[-1] == "7 folders deleted"
    assert remaining(storage) == set()
    assert run("--yes") == ["0 folders deleted"]


def test_it_keeps_what_is_younger(run: Callable[..., list[str]], storage: Storage) -> None:
    lines = run("--older-than", "7", "--yes")
    assert sorted(lines[:-1]) == [
        "data/00112233",
        "searches/sigma-2.ba9876543210",
        "searches/sigma.ba9876543210",
    ]
    assert remaining(storage) == {name for name, days in FILES.items() if days < 7}
    assert lines[-1] == "3 folders deleted"
    lines = run("--older-than", "2.5", "--yes")
    assert lines[-1] == "3 folders deleted"
    assert remaining(storage) == {name for name, days in FILES.items() if days == 0}


def test_a_new_file_keeps_an_old_folder(run: Callable[..., list[str]], storage: Storage) -> None:
    storage.write(b"", "searches", "sigma.ba9876543210", "trial", "new")
    assert "searches/sigma.ba9876543210" not in run("--older-than", "1")


@pytest.mark.parametrize(
    ("lease", "kept"),
    [
        ("trainings/synthetic.base.quick.1", {"trainings/synthetic.base.quick.1.0123456789ab"}),
        ("searches/sigma", {"trainings/sigma.ba9876543210.best", "searches/sigma.ba9876543210"}),
    ],
)
def test_it_keeps_what_a_command_works_on_and_the_data(
    run: Callable[..., list[str]], storage: Storage, lease: str, kept: set[str]
) -> None:
    """The lease of run 1 is none of run 10, and that of search sigma none of sigma-2."""
    with Lease(storage, lease, "working"):
        storage.write(b"", "leases", f"{lease}.json.lock")  # as while a lease is renewed
        lines = run("--yes")
        assert lines[-1] == f"{6 - len(kept)} folders deleted"
        storage.delete("leases", f"{lease}.json.lock")
        left = {"/".join(name.split("/")[:2]) for name in remaining(storage)}
        assert left == {*kept, "data/00112233", "leases/" + lease.split("/")[0]}
    assert run("--yes")[-1] == f"{len(kept) + 1} folders deleted"


@pytest.fixture
def after_list(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Let something happen after the folders were listed."""
    find = clean.find_stale_folders

    def after_list(happen: Callable[[], object]) -> None:
        def find_first(storage: Storage, limit: float) -> list[tuple[str, str]]:
            stale = find(storage, limit)
            happen()
            return stale

        monkeypatch.setattr(clean, "find_stale_folders", find_first)

    return after_list


@pytest.mark.parametrize(
    ("lease", "work", "kept"),
    [
        (
            "trainings/synthetic.base.quick.1",
            "training synthetic.base.quick.1",
            {"trainings/synthetic.base.quick.1.0123456789ab"},
        ),
        (
            "searches/sigma",
            "searching sigma",
            {"trainings/sigma.ba9876543210.best", "searches/sigma.ba9876543210"},
        ),
        (
            "searches/sigma-2",
            "searching sigma-2",
            {"searches/sigma-2.ba9876543210", "searches/sigma-2.ba9876543210.progress"},
        ),
    ],
)
def test_it_keeps_what_a_command_began_after_the_list(
    run: Callable[..., list[str]],
    storage: Storage,
    after_list: Callable[[Callable[[], object]], None],
    lease: str,
    work: str,
    kept: set[str],
) -> None:
    storage.write(b"[]", "searches", "sigma-2.ba9876543210.progress", "progress.json")
    with contextlib.ExitStack() as stack:
        after_list(lambda: stack.enter_context(Lease(storage, lease, work)))
        lines = run("--yes")
    left = {"/".join(name.split("/")[:2]) for name in remaining(storage)}
    assert left == {*kept, "data/00112233"}
    owner = f"{getpass.getuser()} is {work} on {socket.gethostname()}, process {os.getpid()} in "
    reason = f" stays: {owner}{Path.cwd()}: wait for that process, or stop it"
    stays = [line for line in lines if "stays" in line]
    assert stays == [
        "data/00112233 stays: a training or search is under way",
        *(f"{folder}{reason}" for folder in sorted(kept)),
    ]
    assert lines[-1] == f"{8 - len(stays)} folders deleted"


def test_it_keeps_what_a_command_wrote_after_the_list(
    run: Callable[..., list[str]],
    storage: Storage,
    after_list: Callable[[Callable[[], object]], None],
) -> None:
    """The command was stopped again: nobody has the lease."""
    folder = ("trainings", "synthetic.base.quick.1.0123456789ab")
    after_list(lambda: storage.write(b"new", *folder, "000001-ab.checkpoint"))
    lines = run("--older-than", "1", "--yes")
    assert f"{'/'.join(folder)} stays: a file is new" in lines
    assert lines[-1] == "5 folders deleted"
    assert storage.read(*folder, "000001-ab.checkpoint") == b"new"


@pytest.mark.parametrize("content", [b"damaged", json.dumps({"renewed": 0}).encode()])
def test_an_expired_lease_keeps_nothing(
    run: Callable[..., list[str]], storage: Storage, content: bytes
) -> None:
    storage.write(content, "leases", "trainings", "synthetic.base.quick.1.json")
    assert run("--yes")[-1] == "7 folders deleted"


def test_a_lease_that_was_renewed_yesterday_keeps_nothing(
    run: Callable[..., list[str]], storage: Storage
) -> None:
    path = ("leases", "trainings", "synthetic.base.quick.1.json")
    with Lease(storage, "trainings/synthetic.base.quick.1", "training"):
        content = json.loads(storage.read(*path) or b"")
    storage.write(json.dumps({**content, "renewed": time.time() - DAY}).encode(), *path)
    assert run()[-1] == "7 folders would be deleted (--yes)"
    storage.write(json.dumps(content).encode(), *path)
    assert run()[-1] == "5 folders would be deleted (--yes)"


def test_without_params_it_is_refused(
    run: Callable[..., list[str]], storage: Storage, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").unlink()
    with pytest.raises(SettingsError, match=r"params\.yaml"):
        run("--yes")
    assert remaining(storage) == set(FILES)


def test_the_command(storage: Storage, tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "pipeline.clean", "--older-than", "7"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.endswith("3 folders would be deleted (--yes)\n")
    assert process.stderr == ""


@pytest.mark.parametrize("days", ["nan", "-1"])
def test_a_wrong_number_of_days_is_refused(days: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["clean", "--older-than", days])
    with pytest.raises(SettingsError, match=rf"--older-than is {days}.*: give a number from 0"):
        clean.main()
