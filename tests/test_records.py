"""The files of runs: damaged ones name themselves and what makes them again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.plan import records
from pipeline.plan.runs import Evaluation, Run

RUN = Run("synthetic", "base", "quick", 0)
ELSEWHERE = Evaluation(RUN, "other")
RECORD: dict[str, Any] = {
    **{"id": "1", "digest": "2", "source": "3", "configuration": {}, "commit": "c", "date": "d"},
    "environment": {"torch": "2", "device": "CPU"},
}
SCORES = {"key": "k", "cmc": [1.0], "top-1": 1.0, "mAP": 1.0, "blocks": [], "weights": "w",
          "torch": "2", "split": "test"}  # fmt: skip
SEARCH = {"search": "sigma.1", "best": {}, "test": {"mAP": 1.0}}
LATER = {"cameras": "respect"}  # what files of before lack
DESCRIPTION = {"scoring": "ranking", "cameras": "respect", "counts": {}}
FRAME = pd.DataFrame({"epoch": [1, 2], "loss": [2.0, 1.5], "accuracy": [0.5, 1.0],
                      "seconds": [1.0, 1.0], "images_per_second": [9.0, 9.0]})  # fmt: skip
IMAGES = pd.DataFrame({"path": ["a"], "person": [1], "camera": [2], "split": ["train"]})

FILES: dict[str, tuple[str, Callable[[], Any], str]] = {
    "record": (
        "runs/synthetic.base.quick.0/training.json",
        lambda: records.read_record(RUN),
        "train@synthetic.base.quick.0",
    ),
    "history": (
        "runs/synthetic.base.quick.0/history.csv",
        lambda: records.read_history(RUN),
        "train@synthetic.base.quick.0",
    ),
    "scores": (
        "results/other/scores/synthetic.base.quick.0.other.json",
        lambda: records.read_scores(ELSEWHERE),
        "evaluate@synthetic.base.quick.0.other",
    ),
    "search": (
        "results/searches/sigma/scores.json",
        lambda: records.read_search(Path("results/searches/sigma")),
        "searches/dvc.yaml:search@sigma",
    ),
    "queries": (
        "results/other/queries/synthetic.base.quick.0.other.parquet",
        lambda: records.read_queries(ELSEWHERE),
        "evaluate@synthetic.base.quick.0.other",
    ),
    "description": (
        "data/prepared/synthetic/dataset.json",
        lambda: records.read_description(RUN.prepared),
        "prepare@synthetic",
    ),
    "table": (
        "data/prepared/synthetic/table.parquet",
        lambda: records.read_table(RUN.prepared),
        "prepare@synthetic",
    ),
}
REQUIRED = {
    "record": ("id", "digest", "source", "configuration", "environment", "commit", "date"),
    "scores": ("top-1", "mAP", "torch"),
    "search": ("best", "test"),
    "description": ("scoring", "cameras", "counts"),
}
"""What a file of JSON holds at least."""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All files, whole."""
    monkeypatch.chdir(tmp_path)
    for path, _, _ in FILES.values():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(FILES["record"][0]).write_text(json.dumps(RECORD))
    Path(FILES["scores"][0]).write_text(json.dumps(SCORES))
    Path(FILES["search"][0]).write_text(json.dumps(SEARCH))
    Path(FILES["description"][0]).write_text(json.dumps(DESCRIPTION))
    FRAME.to_csv(FILES["history"][0], index=False)
    FRAME.to_parquet(FILES["queries"][0])
    IMAGES.to_parquet(FILES["table"][0])


def test_whole_files_are_read() -> None:
    assert records.read_record(RUN) == RECORD
    assert records.read_scores(ELSEWHERE) == SCORES | LATER | {
        "multiply_adds": None,
        "machine": None,
    }
    assert records.read_search(Path("results/searches/sigma")) == SEARCH | LATER
    assert records.read_description(RUN.prepared) == DESCRIPTION
    pd.testing.assert_frame_equal(records.read_history(RUN), FRAME)
    pd.testing.assert_frame_equal(records.read_queries(ELSEWHERE), FRAME)
    pd.testing.assert_frame_equal(records.read_table(RUN.prepared), IMAGES)


@pytest.mark.parametrize("name", ["scores", "search"])
def test_scores_say_whether_cameras_were_ignored(name: str) -> None:
    path, read, _ = FILES[name]
    content = json.loads(Path(path).read_text()) | {"cameras": "ignore"}
    Path(path).write_text(json.dumps(content))
    assert read().items() >= content.items()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "other", "bytes"])
def test_a_damaged_file_says_what_makes_it_again(name: str, damage: str) -> None:
    path, read, stage = FILES[name]
    original = Path(path).read_bytes()
    content = {
        "cut": original[: len(original) // 3],
        "empty": b"",
        "zeros": bytes(len(original)),
        "other": b"[1, 2]",
        "bytes": b"\xff\xfe\x00",
    }[damage]
    Path(path).write_bytes(content)
    with pytest.raises(ValueError, match="is damaged") as info:
        read()
    assert str(info.value).startswith(f"{path} is damaged (")
    assert str(info.value).endswith(f"): `dvc repro {stage}` makes it again")
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_place_of_a_file_says_what_makes_it_again(name: str) -> None:
    path, read, stage = FILES[name]
    Path(path).unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=rf"no regular file.*`dvc repro {stage}` makes it again"):
        read()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_says_what_makes_it(name: str) -> None:
    path, read, stage = FILES[name]
    Path(path).unlink()
    with pytest.raises(FileNotFoundError) as info:
        read()
    assert str(info.value) == f"{path} does not exist: `dvc repro {stage}` makes it"


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for file, names in REQUIRED.items() for name in names]
)
def test_what_a_record_lacks_is_named(file: str, name: str) -> None:
    path, read, stage = FILES[file]
    content = json.loads(Path(path).read_text())
    del content[name]
    Path(path).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="is damaged") as info:
        read()
    assert str(info.value) == (
        f"{path} is damaged (it has no {name}): `dvc repro {stage}` makes it again"
    )


@pytest.mark.parametrize("name", ["torch", "device"])
def test_an_environment_that_a_record_lacks_is_named(name: str) -> None:
    environment = {key: value for key, value in RECORD["environment"].items() if key != name}
    Path(FILES["record"][0]).write_text(json.dumps(RECORD | {"environment": environment}))
    with pytest.raises(ValueError, match=rf"is damaged \(it has no {name}\): "):
        records.read_record(RUN)


@pytest.mark.parametrize("name", ["top-1", "mAP"])
@pytest.mark.parametrize("value", [7, -0.1, "0.5", True, float("nan"), [0.5]])
def test_a_score_is_a_fraction(name: str, value: Any) -> None:
    path = Path(FILES["scores"][0])
    path.write_text(json.dumps(SCORES | {name: value}))
    with pytest.raises(ValueError, match=rf"is damaged \({name} is .*, and no fraction\): "):
        records.read_scores(ELSEWHERE)


@pytest.mark.parametrize("value", [None, 0, 1, 0.5])
def test_a_score_of_none_or_of_an_end_is_read(value: float | None) -> None:
    Path(FILES["scores"][0]).write_text(json.dumps(SCORES | {"mAP": value}))
    assert records.read_scores(ELSEWHERE)["mAP"] == value


@pytest.mark.parametrize("name", ["path", "person", "camera"])
def test_a_table_needs_its_columns(name: str) -> None:
    IMAGES.drop(columns=name).to_parquet(FILES["table"][0])
    with pytest.raises(ValueError, match=rf"is damaged \(it has no column {name}\): "):
        records.read_table(RUN.prepared)


def test_all_columns_that_a_table_lacks_are_named() -> None:
    IMAGES[["camera", "split"]].to_parquet(FILES["table"][0])
    with pytest.raises(ValueError, match=r"is damaged \(it has no column path, person\): "):
        records.read_table(RUN.prepared)


@pytest.mark.parametrize("name", ["epoch", "loss", "accuracy", "seconds", "images_per_second"])
def test_a_history_needs_its_columns(name: str) -> None:
    FRAME.drop(columns=name).to_csv(FILES["history"][0], index=False)
    with pytest.raises(ValueError, match=rf"is damaged \(it has no numbers {name}\): "):
        records.read_history(RUN)


def test_a_history_needs_its_numbers() -> None:
    FRAME.assign(loss=["a", "b"]).to_csv(FILES["history"][0], index=False)
    with pytest.raises(ValueError, match="it has no numbers loss"):
        records.read_history(RUN)
    FRAME.assign(loss=[2.0, float("nan")]).to_csv(FILES["history"][0], index=False)
    assert records.read_history(RUN).loss.isna().tolist() == [False, True]
