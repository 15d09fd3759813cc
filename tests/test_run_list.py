"""Which lines results/runs.csv keeps."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pandas as pd
import pytest

from pipeline.plan.runs import Evaluation, Run
from pipeline.report.run_list import (
    COLUMNS,
    TrainedRun,
    find_failures,
    keep_others,
    list_runs,
    read_list,
)


def row(key: str, commit: str = "0012345") -> list[object]:
    dataset, network, recipe, seed = key.split(".")
    return [key, dataset, network, recipe, int(seed), 3, 0.5, 0.25, "ab", commit, "CPU", 0.5]


def test_a_line_says_what_the_files_of_its_run_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the keys; a run that is scored elsewhere alone has no scores."""
    monkeypatch.chdir(tmp_path)
    history = pd.DataFrame({"loss": [2.0, 1.0], "seconds": [900.0, 2700.0]})
    record = {"commit": "abc1234", "environment": {"device": "CPU"}}
    trained = []
    for network, scores in (("stage3", {"top-1": 0.5, "mAP": 0.25}), ("base", {})):
        run = Run("synthetic", network, "quick", 1)
        run.folder.mkdir(parents=True)
        (run.folder / "weights.safetensors").write_bytes(network.encode())
        trained.append(TrainedRun(run, history, record, scores))
    first, second = list_runs(trained).astype(object).to_numpy().tolist()
    assert first[:6] == ["synthetic.base.quick.1", "synthetic", "base", "quick", 1, 2]
    assert pd.isna(first[6])
    assert pd.isna(first[7])
    digest = hashlib.sha256(b"stage3").hexdigest()
    assert second[4:] == [1, 2, 0.5, 0.25, digest, "abc1234", "CPU", 1.0]


def test_lines_of_other_data_sets_stay_while_their_scores_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listed = pd.DataFrame([row("synthetic.base.quick.0", "new")], columns=list(COLUMNS))
    assert keep_others(listed) is listed
    old = ("market1501.base.cpu.0", "market1501.gone.cpu.0", "synthetic.base.quick.0")
    Path("results/market1501/scores").mkdir(parents=True)
    Path("results/market1501/scores/market1501.base.cpu.0.json").touch()
    file = Path("results/runs.csv")
    pd.DataFrame(map(row, old), columns=list(COLUMNS)).to_csv(file, index=False)
    kept = keep_others(listed, file)
    assert kept.key.tolist() == ["market1501.base.cpu.0", "synthetic.base.quick.0"]
    assert kept.commit.tolist() == ["0012345", "new"]  # digits alone stay a text


@pytest.mark.parametrize("content", [None, b"", b"a,b\n1,2\n", b"\xe9,\n", b"\0" * 9])
def test_a_damaged_list_says_how_to_get_it_back(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "runs.csv"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"runs\.csv is damaged \(.*\): `git restore .*runs\.csv`"):
        read_list(path)


RUN = Run("synthetic", "base", "quick", 0)
EVALUATIONS = [Evaluation(RUN, on) for on in ("synthetic", "market1501")]
FILES = [RUN.folder / "training.json", *(each.scores for each in EVALUATIONS), RUN.model]
STARTED = json.dumps({"event": "started", "command": "train.py", "arguments": [RUN.key]})
ERROR = json.dumps({"event": "error", "message": "error: no space\nerror: <left>"})


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file for the events of the last attempt of a run."""
    monkeypatch.chdir(tmp_path)
    path = Path(f"build/logs/{RUN.key}.jsonl")
    path.parent.mkdir(parents=True)
    return path


def test_a_run_fails_by_the_last_event_of_its_last_attempt(log: Path) -> None:
    others = [Evaluation(RUN._replace(seed=seed), "synthetic") for seed in (1, 2)]
    log.with_name(f"{others[0].run.key}.jsonl").write_text(f"{STARTED}\n")
    log.write_text(f"{STARTED}\n{ERROR}\n")
    # One was stopped or goes on, and one was never started.
    assert find_failures([*EVALUATIONS, *others]) == {RUN: "no space\nerror: <left>"}


@pytest.mark.parametrize(
    "text",
    ["", STARTED, f'{STARTED}\n{ERROR}\n{{"event": "finished"}}\n', f"{STARTED}\n{ERROR[:-9]}"],
)
def test_an_attempt_that_goes_on_or_succeeds_is_no_failure(text: str, log: Path) -> None:
    log.write_text(text)
    assert find_failures(EVALUATIONS) == {}


@pytest.mark.parametrize("lost", [None, *FILES])
def test_a_run_that_dvc_repro_has_mended_is_no_failure(lost: Path | None, log: Path) -> None:
    log.write_text(f"{STARTED}\n{ERROR}\n")
    for file in FILES:
        if file != lost:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    assert list(find_failures(EVALUATIONS)) == ([] if lost is None else [RUN])
