"""results/runs.csv: a line for each run of the plan, and for runs of other data with results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ianet.datasets.source import refuse_irregular
from ianet.escapes import to_csv
from ianet.files import write_whole
from pipeline.plan.dvc_yaml import RUN_LIST
from pipeline.plan.plan import own_evaluation, unique_runs
from pipeline.plan.records import read_history, read_record, read_scores
from pipeline.plan.runs import RECORD, RESULTS, Evaluation, Run
from pipeline.shell import LOGS

COLUMNS = (
    "key", "dataset", "network", "recipe", "seed", "epochs", "top-1", "mAP", "sha256", "commit",
    "machine", "hours",
)  # fmt: skip


class TrainedRun(NamedTuple):
    """What the files of a run say.

    Attributes:
        history: a row for each epoch.
        record: the content of training.json.
        scores: on its own data set; empty where the run is scored elsewhere alone.
    """

    run: Run
    history: pd.DataFrame
    record: dict[str, Any]
    scores: dict[str, Any]


def read_run(run: Run, evaluations: Sequence[Evaluation]) -> TrainedRun:
    """The files of a run; `evaluations` are those of the page."""
    evaluation = own_evaluation(run)
    scores = read_scores(evaluation) if evaluation in evaluations else {}
    return TrainedRun(run, read_history(run), read_record(run), scores)


def find_failures(evaluations: Sequence[Evaluation]) -> dict[Run, str]:
    """The runs whose last attempt by `make repro` failed, with the reason.

    A run with all its files is none of them: `dvc repro` mended the run, and writes no events.
    """
    failures = {}
    for run in unique_runs(evaluations):
        of_run = [each for each in evaluations if each.run == run]
        files = [run.folder / RECORD, *(each.scores for each in of_run)]
        files += [run.model for each in of_run if each.is_own]
        reason = _read_error(run)
        if reason and not all(file.exists() for file in files):
            failures[run] = reason
    return failures


def _read_error(run: Run) -> str:
    """The error with which the last attempt ended; nothing if it succeeded, stopped or goes on."""
    try:
        last = json.loads((LOGS / f"{run.key}.jsonl").read_text().splitlines()[-1])
    except (FileNotFoundError, IndexError, ValueError):
        return ""
    return str(last["message"]).removeprefix("error: ") if last["event"] == "error" else ""


def list_runs(runs: Sequence[TrainedRun]) -> pd.DataFrame:
    """A row for each run, by its key.

    Returns:
        key; dataset, network, recipe and seed, its parts; epochs; top-1 and mAP on its own data
        set, as fractions, empty where the protocol defines none or where the run is scored
        elsewhere alone; sha256 of the weights; commit and machine of the training; and its hours.
    """
    rows = []
    for run, history, record, scores in runs:
        rows.append(
            [
                run.key,
                *run,
                len(history),
                scores.get("top-1"),
                scores.get("mAP"),
                run.weights_digest(),
                record["commit"],
                record["environment"]["device"],
                round(history.seconds.sum() / 3600, 4),
            ]
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values("key", ignore_index=True)


def read_list(path: Path = RUN_LIST) -> pd.DataFrame:
    """The rows of the file; none where there is no file.

    Raises:
        ValueError: the file is damaged; the message says how to get it back.
    """
    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    names = dict.fromkeys(
        ("key", "dataset", "network", "recipe", "sha256", "commit", "machine"), str
    )
    gaps = {"top-1": "", "mAP": ""}
    try:
        refuse_irregular(path)
        lines = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=gaps)
        if missing := [name for name in COLUMNS if name not in lines]:
            raise ValueError(f"it has no column {', '.join(missing)}")
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{path} is damaged ({reason}): `git restore {path}` takes it back"
        ) from error
    return lines


def keep_others(lines: pd.DataFrame, path: Path = RUN_LIST) -> pd.DataFrame:
    """The rows, and those of the file whose run is not listed, but whose scores still lie there."""
    before = read_list(path)
    others = [
        key not in set(lines.key) and (RESULTS / dataset / "scores" / f"{key}.json").exists()
        for key, dataset in zip(before.key, before.dataset, strict=True)
    ]
    if not any(others):
        return lines
    return pd.concat([lines, before[others]]).sort_values("key", ignore_index=True)


def write_list(lines: pd.DataFrame) -> None:
    """Write results/runs.csv of the rows of `list_runs`, and of those that `keep_others` keeps."""
    write_whole(RUN_LIST, to_csv(keep_others(lines), "%.6g"))
