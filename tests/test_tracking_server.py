"""The MLflow server: its address, and what a server or a database that cannot be used says."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import mlflow
import pytest
from browser import needs_browser, open_page, start_browser
from mlflow.exceptions import MlflowException
from project import empty_database
from servers import mlflow_server

from pipeline.tracking import server
from pipeline.tracking.recorder import open_run


@pytest.fixture
def unconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A folder in which MLflow is not used; the experiments that are chosen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "set, so that the value of before comes back")
    before = mlflow.get_tracking_uri()
    names: list[str] = []

    def choose(name: str) -> SimpleNamespace:
        names.append(name)
        return SimpleNamespace(tags=server.TAGS, artifact_location=str(Path.cwd() / "mlruns/1"))

    monkeypatch.setattr(mlflow, "set_experiment", choose)
    yield names
    mlflow.set_tracking_uri(before)


@pytest.mark.parametrize(
    ("variable", "uri"),
    [
        (None, "sqlite:///mlflow.db"),
        ("", "sqlite:///mlflow.db"),
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
    ],
)
def test_an_empty_address_counts_as_none(
    unconnected: list[str], monkeypatch: pytest.MonkeyPatch, variable: str | None, uri: str
) -> None:
    if variable is None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    server.connect()
    assert mlflow.get_tracking_uri() == uri
    assert unconnected == ["ianet"]
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "10"


def test_an_address_that_cannot_be_used_is_named(
    unconnected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise MlflowException("no answer\nat all")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(mlflow, "set_experiment", fail)
    with pytest.raises(ConnectionError) as error:
        server.connect()
    assert str(error.value) == (
        "MLflow at http://127.0.0.1:9 cannot be used (no answer): start the server, or unset "
        "MLFLOW_TRACKING_URI to log to sqlite:///mlflow.db"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"^MLflow at http://127\.0\.0\.1:9 cannot") as error:
        server.connect()
    assert "secret" not in str(error.value)


def test_a_copy_that_dvc_deletes_is_told(
    unconnected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    copy = tmp_path / ".dvc/tmp/exps/tmp1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    server.connect()
    assert "mlflow.db with it: set MLFLOW_TRACKING_URI to a server" in caplog.text
    caplog.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    server.connect()
    assert caplog.text == ""


def test_a_full_disk_at_the_start_of_a_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise MlflowException("(sqlite3.OperationalError) database or disk is full\n[SQL: ...]")

    monkeypatch.setattr(mlflow, "start_run", fail)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: "sqlite:////data/mlflow.db")
    with pytest.raises(ConnectionError) as error, open_run(lambda status: "id"):
        pytest.fail("the work begins")
    assert str(error.value) == (
        "MLflow at sqlite:////data/mlflow.db cannot be used ((sqlite3.OperationalError) database "
        "or disk is full): make space in /data, and the same command resumes"
    )


@pytest.mark.slow
def test_telemetry_is_off_in_a_command(tmp_path: Path) -> None:
    """In a process of its own: MLflow's telemetry is off in tests and in CI."""
    script = (
        "from mlflow.telemetry import get_telemetry_client\n"
        "from pipeline.tracking import server\n"
        "try: server.connect()\n"
        "except ConnectionError: print(get_telemetry_client())"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(server.__file__).parents[2]),
            "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout == "None\n", process.stderr


def test_a_damaged_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_text("version https://git-lfs.github.com/spec/v1\n" * 40)
    with pytest.raises(ConnectionError, match="file is not a database") as error:
        server.connect()
    assert "\n" not in str(error.value)
    assert "move mlflow.db away, and `make sync` fills" in str(error.value)


@pytest.mark.parametrize("artifacts", ["s3://bucket/mlruns/1", "/data/artifacts/1", "mlruns/1"])
def test_a_place_of_the_users_choice_is_left_alone(
    unconnected: list[str], monkeypatch: pytest.MonkeyPatch, artifacts: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    answer = SimpleNamespace(tags=server.TAGS, artifact_location=artifacts)
    monkeypatch.setattr(mlflow, "set_experiment", lambda _: answer)
    server.connect()
    assert not Path("mlflow.db").exists()  # which a change would have opened


def test_a_server_knows_its_own_place(
    unconnected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    answer = SimpleNamespace(tags=server.TAGS, artifact_location="/elsewhere/mlruns/1")
    monkeypatch.setattr(mlflow, "set_experiment", lambda _: answer)
    server.connect()
    assert not Path("mlflow.db").exists()


class Records(NamedTuple):
    """A project with a run, a registered model, and runs whose files lie elsewhere."""

    folder: Path
    run_id: str
    elsewhere: dict[str, str]  # run to place

    def enter(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Connect to mlflow.db of a folder, as a process that starts there; the database."""
        # MLflow keeps what it knows of a database by its address.
        monkeypatch.setattr(server, "LOCAL", f"sqlite:///{folder}/mlflow.db")
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # which MLflow sets
        monkeypatch.chdir(folder)
        server.connect()
        return folder / "mlflow.db"

    def check(self, folder: Path) -> None:
        """Compare all that a connected MLflow says of the records with what was written."""
        with tempfile.TemporaryDirectory() as target:
            for uri, name, content in (
                (f"runs:/{self.run_id}/a", "file.bin", b"of the run"),
                ("models:/d.n/1", "data/weights", b"of the model"),
                ("models:/d.n/2", "file.bin", b"of the run"),
            ):
                download = mlflow.artifacts.download_artifacts(uri, dst_path=target)
                assert Path(download, name).read_bytes() == content
        client = mlflow.MlflowClient()
        assert client.get_model_version("d.n", "1").run_id == self.run_id
        assert Path(client.get_model_version_download_uri("d.n", "1")).is_relative_to(folder)
        for run_id, place in [*self.elsewhere.items(), (self.run_id, f"{folder}/mlruns/1")]:
            assert client.get_run(run_id).info.artifact_uri == f"{place}/{run_id}/artifacts"
        experiments = {each.name: each.artifact_location for each in client.search_experiments()}
        assert experiments["ianet"] == f"{folder}/mlruns/1"
        assert set(self.elsewhere.values()) <= set(experiments.values())


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Records]:
    """Records that MLflow's own client wrote in the folder `old`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "set, so that the value of before comes back")
    before = mlflow.get_tracking_uri()
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(empty_database())
    (folder / "loader.py").write_text("def _load_pyfunc(path):\n    return path\n")
    (folder / "weights").write_bytes(b"of the model")
    written = Records(folder, "", {})
    written.enter(folder, monkeypatch)
    client = mlflow.MlflowClient()
    with mlflow.start_run() as run:
        (folder / "file.bin").write_bytes(b"of the run")
        client.log_artifact(run.info.run_id, "file.bin", "a")
        mlflow.pyfunc.log_model(
            name="model",
            registered_model_name="d.n",
            loader_module="loader",
            data_path="weights",
            code_paths=["loader.py"],
            pip_requirements=[],
        )
        client.create_model_version("d.n", f"{run.info.artifact_uri}/a", run.info.run_id)
    elsewhere = {}
    for place in ("s3://bucket/old/mlruns", f"{folder}2/mlruns/1"):
        experiment = client.create_experiment(place.split("/")[0] or "local", place)
        elsewhere[client.create_run(experiment).info.run_id] = place
    yield Records(folder, run.info.run_id, elsewhere)
    mlflow.set_tracking_uri(before)


def columns_with(database: Path, text: str) -> set[tuple[str, str]]:
    """The tables and columns in which a text occurs."""
    with closing(sqlite3.connect(database)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        columns = [
            (table, column)
            for (table,) in tables.fetchall()
            for _, column, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall()
        ]
        count = 'SELECT count(*) FROM "{}" WHERE instr("{}", ?)'
        return {
            place for place in columns
            if connection.execute(count.format(*place), (text,)).fetchone()[0]
        }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("is_copy", [False, True])
def test_a_project_that_was_moved_or_copied_keeps_its_records_and_files(
    records: Records,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_copy: bool,
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    records.check(records.folder)
    original = (records.folder / "mlflow.db").read_bytes()
    places = columns_with(records.folder / "mlflow.db", f"{records.folder}/")
    assert places == set(server.LOCATIONS)
    new = tmp_path / "old%_é/new"  # signs with a meaning in SQL
    new.parent.mkdir()
    if is_copy:
        shutil.copytree(records.folder, new)
    else:
        records.folder.rename(new)

    database = records.enter(new, monkeypatch)
    records.check(new)
    assert columns_with(database, f"{records.folder}/") == set()
    assert [record.getMessage() for record in caplog.records] == [
        f"mlflow.db names files in {new}/mlruns/ now, in place of {records.folder}/mlruns/"
    ]
    run_id = server.create("next", {})
    place = f"{new}/mlruns/1/{run_id}/artifacts"
    assert mlflow.get_run(run_id).info.artifact_uri == place
    caplog.clear()
    mended = database.read_bytes()
    records.enter(new, monkeypatch)
    assert database.read_bytes() == mended
    assert caplog.text == ""
    if is_copy:
        assert (records.folder / "mlflow.db").read_bytes() == original


@pytest.mark.slow
def test_a_database_that_was_copied_alone_asks_for_its_files(
    records: Records,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(records.folder / "mlflow.db", new)
    records.enter(new, monkeypatch)
    assert caplog.text.endswith(f": copy {records.folder}/mlruns into this folder\n")
    shutil.copytree(records.folder / "mlruns", new / "mlruns")
    records.check(new)


@pytest.mark.slow
def test_a_change_that_fails_leaves_all_places_as_they_were(
    records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    records.folder.rename(new)
    before = (new / "mlflow.db").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(server, "LOCATIONS", (*server.LOCATIONS, ("a_table", "of_tomorrow")))
        with pytest.raises(ConnectionError, match="no such table: a_table"):
            records.enter(new, monkeypatch)
    assert (new / "mlflow.db").read_bytes() == before
    records.enter(new, monkeypatch)
    records.check(new)


def test_files_on_another_disk_are_files_of_this_project(
    unconnected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "disk").mkdir()
    (tmp_path / "c#").mkdir()
    (tmp_path / "c#/mlruns").symlink_to(tmp_path / "disk")
    monkeypatch.chdir(tmp_path / "c#")
    for prefix in ("", "file://"):
        artifacts = f"{prefix}{tmp_path}/c#/mlruns/1"
        answer = SimpleNamespace(tags=server.TAGS, artifact_location=artifacts)
        monkeypatch.setattr(mlflow, "set_experiment", lambda _, answer=answer: answer)
        server.connect()


@pytest.mark.slow
@needs_browser
def test_the_view_of_all_runs_has_the_best_first_and_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    before = mlflow.get_tracking_uri()
    try:
        server.connect()
        tags = mlflow.MlflowClient().get_experiment("1").tags
        assert server.TAGS.items() <= tags.items()
        for network, score in (("middle", 0.4), ("best", 0.5), ("worst", 0.3)):
            run_id = server.create(network, {})
            names = {"dataset": "d", "network": network, "recipe": "r", "seed": 7}
            assert server.send_parameters(run_id, names)
            for name in ("test_mAP", "test_top_1", "another"):
                mlflow.MlflowClient().log_metric(run_id, name, score)
        with (
            mlflow_server(database, tmp_path / "artifacts") as running,
            start_browser() as browser,
            open_page(browser, "", 1600) as (page, _),
        ):
            page.goto(server.view_address(running.url))
            page.get_by_role("link", name="worst").wait_for()
            names = page.locator('[role="row"] a').all_inner_texts()
            titles = page.locator('[role="columnheader"]').all_inner_texts()
    finally:
        mlflow.set_tracking_uri(before)
    assert [name for name in names if name in ("best", "middle", "worst")] == [
        "best", "middle", "worst",
    ]  # fmt: skip
    assert {"test_mAP", "test_top_1", "dataset", "network", "recipe", "seed"} <= set(titles)
    assert "another" not in titles
