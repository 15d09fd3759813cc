"""The files of runs, evaluations and prepared data sets, read with what makes a damaged one again.

A file may be damaged by a full disk, by a copy that was cut, or by an edit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pandas.api.types import is_numeric_dtype

from ianet.datasets.source import refuse_irregular
from pipeline.plan.runs import DESCRIPTION, HISTORY, RECORD, TABLE, Evaluation, Run

SEARCH = "scores.json"  # in the folder of a search's results
LATER = {"cameras": "respect"}
"""Fields that older files of scores lack, with the values of these files."""

Content = TypeVar("Content")


def read_record(run: Run) -> dict[str, Any]:
    """The content of training.json of a run.

    Raises:
        FileNotFoundError: the run was not trained.
        ValueError: the file is damaged; the message says what makes it again.
    """
    path = run.folder / RECORD

    def parse() -> dict[str, Any]:
        names = ("id", "digest", "source", "configuration", "environment", "commit", "date")
        record = _parse_object(path, names)
        _refuse_missing(record["environment"], ("torch", "device"))
        return record

    return _read(path, f"train@{run.key}", parse)


def read_history(run: Run) -> pd.DataFrame:
    """A row for each epoch of a run; raises as `read_record`."""
    path = run.folder / HISTORY

    def parse() -> pd.DataFrame:
        history = pd.read_csv(path)
        for name in ("epoch", "loss", "accuracy", "seconds", "images_per_second"):
            if name not in history or not is_numeric_dtype(history[name]) or history.empty:
                raise ValueError(f"it has no numbers {name}")
        return history

    return _read(path, f"train@{run.key}", parse)


def read_scores(evaluation: Evaluation) -> dict[str, Any]:
    """The means over the queries; raises as `read_record`."""
    path = evaluation.scores

    def parse() -> dict[str, Any]:
        scores = _parse_object(path, ("top-1", "mAP", "torch"))
        for name in ("top-1", "mAP"):
            value = scores[name]
            if value is not None and not (type(value) in (int, float) and 0 <= value <= 1):
                raise ValueError(f"{name} is {value!r}, and no fraction")
        return scores

    scores = _read(path, f"evaluate@{evaluation.key}", parse)
    return LATER | {"multiply_adds": None, "machine": None} | scores


def read_search(folder: Path) -> dict[str, Any]:
    """The best values of a search and their scores on test; raises as `read_record`.

    Args:
        folder: of the results, with the name of the search.
    """
    path = folder / SEARCH
    stage = f"searches/dvc.yaml:search@{folder.name}"
    return LATER | _read(path, stage, lambda: _parse_object(path, ("best", "test")))


def read_queries(evaluation: Evaluation) -> pd.DataFrame:
    """The scores of each query; raises as `read_record`."""
    path = evaluation.queries
    return _read(path, f"evaluate@{evaluation.key}", lambda: pd.read_parquet(path))


def read_description(prepared: Path) -> dict[str, Any]:
    """The protocol and the counts of the prepared data set in a folder; raises as `read_record`."""
    path = prepared / DESCRIPTION
    names = ("scoring", "cameras", "counts")
    return _read(path, f"prepare@{prepared.name}", lambda: _parse_object(path, names))


def read_table(prepared: Path) -> pd.DataFrame:
    """The images of the prepared data set in a folder; raises as `read_record`."""
    path = prepared / TABLE

    def parse() -> pd.DataFrame:
        table = pd.read_parquet(path)
        missing = {"path", "person", "camera"} - set(table.columns)
        if missing:
            raise ValueError(f"it has no column {', '.join(sorted(missing))}")
        return table

    return _read(path, f"prepare@{prepared.name}", parse)


def _parse_object(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    content = json.loads(path.read_text())
    _refuse_missing(content, names)
    return dict(content)


def _refuse_missing(content: object, names: tuple[str, ...]) -> None:
    """Raise ValueError unless a content is an object with these fields."""
    missing = [name for name in names if not isinstance(content, dict) or name not in content]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}")


def _read(path: Path, stage: str, parse: Callable[[], Content]) -> Content:
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: `dvc repro {stage}` makes it")
    try:
        refuse_irregular(path)
        return parse()
    except Exception as error:  # each format has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{path} is damaged ({reason}): `dvc repro {stage}` makes it again"
        ) from error
