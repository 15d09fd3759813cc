"""The MLflow server: its address, and what a server or a database that cannot be used says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from browser import needs_browser, open_page
from mlflow.exceptions import MlflowException
from servers import mlflow_server

from pipeline.tracking import server


@pytest.fixture
def unconnected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A folder in which MLflow is not used; the experiments that are chosen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "set, so that the value of before comes back")
    before = mlflow.get_tracking_uri()
    chosen: list[str] = []

    def choose(name: str) -> SimpleNamespace:
        chosen.append(name)
        return SimpleNamespace(tags=server.TAGS, artifact_location=str(Path.cwd() / "mlruns/1"))

    monkeypatch.setattr(mlflow, "set_experiment", choose)
    yield chosen
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


def test_a_damaged_database_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_text("version https://git-lfs.github.com/spec/v1\n" * 40)
    with pytest.raises(ConnectionError, match="file is not a database") as error:
        server.connect()
    assert "\n" not in str(error.value)
    assert "move mlflow.db away, and `make sync` fills" in str(error.value)


@pytest.mark.parametrize(
    "artifacts", ["/elsewhere/mlruns/1", "{}/mlruns/1", "s3://bucket/mlruns/1"]
)
def test_a_project_that_was_moved_does_not_write_into_its_old_folder(
    unconnected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifacts: str
) -> None:
    """Nor does a project that was copied out of this folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    place = artifacts.format(tmp_path / "copy")
    answer = SimpleNamespace(tags=server.TAGS, artifact_location=place)
    monkeypatch.setattr(mlflow, "set_experiment", lambda _: answer)
    with pytest.raises(ConnectionError) as error:
        server.connect()
    assert str(error.value) == (
        f"mlflow.db keeps its files in {place}, not in this folder, as after a move or a copy: "
        "move mlflow.db away, and `make sync` fills a new one"
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # a server knows its own place
    server.connect()


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
            open_page("", 1600) as (page, _),
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
