"""What a server of MLflow missed is sent later, all that can be read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow_runs import tracked
from small import RECORD

from pipeline import ending, sync
from pipeline.config.settings import SettingsError
from pipeline.plan.runs import Run

ROOT = Path(__file__).parents[1]
RUNS = [Run("synthetic", name, "quick", 0) for name in ("base", "cia", "stage3")]


def fail(error: Exception) -> None:
    raise error


def test_an_error_of_a_file_leaves_the_others_to_be_sent() -> None:
    sent = []
    errors = sync.sync_all(
        {
            "a": lambda: fail(ValueError("history.csv is damaged")),
            "b": lambda: sent.append("b"),
            "c": lambda: fail(FileNotFoundError("weights are missing")),
            "d": lambda: sent.append("d"),
        }
    )
    assert sent == ["b", "d"]
    assert {name: str(error) for name, error in errors.items()} == {
        "a": "history.csv is damaged",
        "c": "weights are missing",
    }


def test_a_server_that_goes_away_ends_the_command_in_a_line() -> None:
    sent: list[str] = []
    works = {"a": lambda: fail(MlflowException("no answer")), "b": lambda: sent.append("b")}
    with pytest.raises(ConnectionError, match="no answer"):
        sync.sync_all(works)
    assert sent == []


def test_a_record_that_mlflow_refuses_is_an_error_of_its_run_alone() -> None:
    sent: list[str] = []
    refusal = MlflowException("name of a parameter is too long", BAD_REQUEST)
    errors = sync.sync_all({"a": lambda: fail(refusal), "b": lambda: sent.append("b")})
    assert sent == ["b"]
    assert str(errors["a"]) == "MLflow refuses a record (name of a parameter is too long)"


@pytest.mark.slow
@pytest.mark.parametrize("damage", [True, False])
def test_the_command_sends_all_runs_and_the_results(
    tracked_project: Path,
    damage: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run of three is damaged, or none. The stage of the page sends the results."""
    for name in ("params.yaml", "experiments"):
        (tracked_project / name).symlink_to(ROOT / name)
    for number, run in enumerate(RUNS):
        run.folder.mkdir(parents=True)
        (run.folder / "weights.safetensors").write_bytes(b"weights")
        configuration = {"network": {}, "recipe": {}, "hold_out": False}
        record = RECORD | {"id": str(number), "configuration": configuration}
        (run.folder / "training.json").write_text(json.dumps(record))
        (run.folder / "history.csv").write_text(
            "epoch,loss,accuracy,seconds,images_per_second\n1,2.0,0.5,1.0,9.0\n"
        )
    if damage:
        (RUNS[1].folder / "history.csv").write_text("epoch")
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(ending, "run_command", lambda *words: commands.append(words))
    monkeypatch.setattr(sys, "argv", ["sync"])
    if damage:
        with pytest.raises(SettingsError, match=r"^1 of 3 could not be sent:\n  synthetic\.cia\.q"):
            sync.main()
    else:
        sync.main()
        assert capsys.readouterr().out == "MLflow holds 3 runs; searches: 0\n"
    names = {run.info.run_name for run in tracked()}
    assert names == {run.key for run in RUNS} - ({RUNS[1].key} if damage else set())
    assert commands == [(sys.executable, "-m", "pipeline.stages.report")]
