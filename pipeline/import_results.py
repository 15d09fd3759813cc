"""Bring in the results of another checkout, for a data set that is not at hand here.

    python -m pipeline.import_results ../elsewhere market1501

The tables then show these results, and nothing is trained. The other checkout may be of another
commit. Its runs must have the options of this params.yaml. Copied are the scores of each run and of
its queries. results/runs.csv gets a line for each run of the data set, with its commit and machine.
The data and the weights stay where they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pandas as pd

from ianet.files import write_whole
from pipeline.config.experiments import ScoreTable
from pipeline.config.settings import PARAMS, Settings, SettingsError, check_known, load
from pipeline.plan.dvc_yaml import write
from pipeline.plan.plan import Plan, load_plan, unique_runs
from pipeline.plan.records import read_queries, read_record, read_scores
from pipeline.plan.runs import RECORD, RESULTS, RUNS, Evaluation, Run, parse_evaluation
from pipeline.plan.sources import PREPARATION
from pipeline.report.run_list import list_runs, read_list, read_run, write_list
from pipeline.shell import LOGS, command, format_runs, lock_work, parser
from pipeline.training.configuration import configure

OPTIONS = set(PREPARATION) - {"source"}  # of a data set, which may lie elsewhere there


def find_evaluations(dataset: str, settings: Settings) -> list[Evaluation]:
    """The evaluations on a data set in this folder whose runs lie there too.

    Raises:
        SettingsError: there is none, or params.yaml lacks a name of one.
        ValueError: scores that are not those of the run's weights, or a damaged file.
        FileNotFoundError: a file of a run is missing.
    """
    paths = sorted((RESULTS / dataset / "scores").glob("*.json"))
    evaluations = [
        parse_evaluation(path.stem, settings)
        for path in paths
        if (RUNS / ".".join(path.stem.split(".")[:4]) / RECORD).exists()
    ]
    if not evaluations:
        raise SettingsError(f"no run has scores on {dataset}: train and evaluate one first")
    for evaluation in evaluations:
        if read_scores(evaluation).get("weights") != evaluation.run.weights_digest():
            raise ValueError(
                f"{evaluation.scores} is not of the weights in {evaluation.run.folder}: "
                f"`dvc repro evaluate@{evaluation.key}` makes it again"
            )
        read_queries(evaluation)
    return evaluations


def check_equal(evaluation: Evaluation, here: Settings, there: Settings) -> None:
    """Refuse results that this params.yaml would not give. Reads the run in this folder.

    Args:
        evaluation: of the other checkout.
        here, there: params.yaml of this checkout, and of the other one.

    Raises:
        SettingsError: the data set has other options there, or the run was trained with others.
    """
    run = evaluation.run
    for name in dict.fromkeys([run.dataset, evaluation.on]):
        first, second = (each.datasets[name].model_dump(include=OPTIONS) for each in (here, there))
        _compare(f"datasets.{name}", first, second)
    configuration = configure(run, here.networks[run.network], here.recipes[run.recipe])
    parameters = json.loads(json.dumps(configuration.parameters()))
    _compare(f"run {run.key}: ", parameters, read_record(run)["configuration"])


def _compare(section: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Refuse an option of both that differs."""
    for option in here.keys() & there.keys():
        first, second = here[option], there[option]
        name = f"{section}{'' if section.endswith(' ') else '.'}{option}"
        if isinstance(first, Mapping) and isinstance(second, Mapping) and first and second:
            _compare(name, first, second)
        elif first != second:
            raise SettingsError(
                f"{name} is {first} by {PARAMS} here and {second} there: give both the same value"
            )


def read_results(
    folder: Path, dataset: str, here: Settings
) -> tuple[list[Evaluation], dict[Path, bytes], pd.DataFrame]:
    """The results of a data set in another checkout.

    Returns:
        The evaluations, the contents of their files by path, and the lines of the data set's runs
        for results/runs.csv.

    Raises:
        SettingsError: see `find_evaluations` and `check_equal`; the message names the folder.
    """
    contents: dict[Path, bytes] = {}
    try:
        with chdir(folder):
            there = load()
            evaluations = find_evaluations(dataset, there)
            for evaluation in evaluations:
                parse_evaluation(evaluation.key, here)  # whether this params.yaml has its names
                check_equal(evaluation, here, there)
                for path in (evaluation.queries, evaluation.scores):
                    contents[path] = path.read_bytes()
            lines = list_runs([read_run(each.run, [each]) for each in evaluations if each.is_own])
    except (ValueError, OSError) as error:
        raise SettingsError(f"in {folder}: {error}") from error
    return evaluations, contents, lines


def import_results(folder: Path, dataset: str) -> list[Run]:
    """Copy the results of a data set from a checkout.

    Returns:
        The runs.

    Raises:
        SettingsError: the data set is at hand here or is drawn, or see `read_results`.
        ValueError: results/runs.csv of this checkout is damaged.
    """
    here = load()
    check_known(dataset, here.datasets, "the command line", f"datasets of {PARAMS}")
    if dataset in here.at_hand:
        raise SettingsError(
            f"{dataset} is at hand here, so its results are made here: take the name out of "
            f"at_hand in {PARAMS} to show those of {folder}"
        )
    if here.datasets[dataset].synthetic is not None:
        raise SettingsError(f"{dataset} is drawn by this project: name it under at_hand instead")
    if not (folder / PARAMS).exists():
        raise SettingsError(f"{folder} is no checkout of this project: it holds no {PARAMS}")
    read_list()  # a damaged list is reported before a file is replaced
    evaluations, contents, lines = read_results(folder, dataset, here)
    for evaluation in evaluations:  # without scores a table leaves the run out
        evaluation.scores.unlink(missing_ok=True)
    for path, content in contents.items():
        write_whole(path, content)
    write_list(lines)
    return unique_runs(evaluations)


def find_tables(plan: Plan, runs: list[Run]) -> list[str]:
    """The names of the tables that show runs, and for which nothing is trained here."""
    return [
        name
        for name, table in plan.experiments.items()
        if isinstance(table, ScoreTable)
        and any(each.run in runs for _, row in plan.rows(table) for each in row)
        and not plan.evaluations([name])
    ]


def main() -> None:
    options = parser(__doc__, "pipeline.import_results")
    options.add_argument("folder", type=Path, help="the other checkout")
    options.add_argument("dataset", help="of datasets in params.yaml")
    arguments = options.parse_args()
    with lock_work(LOGS / "repro.lock", "making results in this folder"):
        runs = import_results(arguments.folder, arguments.dataset)
        plan = load_plan()
        write(plan)
    for run in runs:
        print(run.key)
    tables = find_tables(plan, runs)
    commands = f"make repro ONLY='{' '.join(tables)}' makes their tables" if tables else ""
    print(f"{format_runs(len(runs))} of {arguments.dataset}. {commands or 'No table shows them'}")


if __name__ == "__main__":
    command(main)
