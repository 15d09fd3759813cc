"""Bring in the results of another checkout, for a data set that is not at hand here.

    python -m pipeline.import_results ../elsewhere market1501

The tables then show these results, and nothing is trained. The other checkout may be of another
commit. Its data set, recipes and networks must be those of this params.yaml. Copied are the scores
of each run and of its queries. results/runs.csv gets a line for each run, with its commit and
machine. The data and the weights stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

from ianet.files import write_whole
from pipeline.config.settings import PARAMS, Settings, SettingsError, check_known, load
from pipeline.plan.dvc_yaml import RUN_LIST, write
from pipeline.plan.plan import load_plan, own_evaluation
from pipeline.plan.records import read_queries, read_scores
from pipeline.plan.runs import RECORD, RESULTS, Evaluation, Run, parse_evaluation
from pipeline.plan.sources import PREPARATION
from pipeline.report.run_list import keep_others, list_runs, read_run
from pipeline.report.spreadsheets import to_csv
from pipeline.shell import command, parser

KEPT = set(PREPARATION) - {"source"}  # a data set may lie elsewhere there


def find_evaluations(dataset: str, settings: Settings) -> list[Evaluation]:
    """The evaluations on a data set in this folder whose runs lie there too.

    Raises:
        SettingsError: there is none.
        ValueError: scores that are not those of the run's weights, or a damaged file.
    """
    paths = sorted((RESULTS / dataset / "scores").glob("*.json"))
    evaluations = [
        evaluation
        for evaluation in (parse_evaluation(path.stem, settings) for path in paths)
        if (evaluation.run.folder / RECORD).exists()
    ]
    if not evaluations:
        raise SettingsError(
            f"{Path.cwd()} holds no run with scores on {dataset}: train and evaluate there first"
        )
    for evaluation in evaluations:
        if read_scores(evaluation)["weights"] != evaluation.run.weights_digest():
            raise ValueError(
                f"{evaluation.scores.resolve()} is not of the weights in {evaluation.run.folder}: "
                f"`dvc repro evaluate@{evaluation.key}` there makes it again"
            )
        read_queries(evaluation)
    return evaluations


def check_equal(evaluation: Evaluation, here: Settings, there: Settings) -> None:
    """Refuse results that this params.yaml would not give.

    Raises:
        SettingsError: the data set, the recipe or the network has other options there.
    """
    run = evaluation.run
    for name in dict.fromkeys([run.dataset, evaluation.on]):
        first, second = (each.datasets[name].model_dump(include=KEPT) for each in (here, there))
        _compare(f"datasets.{name}", first, second)
    first, second = (
        each.recipes[run.recipe].model_dump(exclude={"minutes"}) for each in (here, there)
    )
    _compare(f"recipes.{run.recipe}", first, second)
    _compare(f"networks.{run.network}", here.networks[run.network], there.networks[run.network])


def _compare(section: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    for option in {**here, **there}:
        if here.get(option) != there.get(option):
            raise SettingsError(
                f"{section}.{option} of {PARAMS} is {here.get(option)} here and "
                f"{there.get(option)} there: give both the same value"
            )


def import_results(folder: Path, dataset: str) -> list[Run]:
    """Copy the results of a data set from a checkout.

    Returns:
        The runs.

    Raises:
        SettingsError: the data set is at hand here, or see `find_evaluations` and `check_equal`.
        ValueError: as `find_evaluations`.
    """
    ours = load()
    check_known(dataset, ours.datasets, "the command line", f"datasets of {PARAMS}")
    if dataset in ours.at_hand:
        raise SettingsError(
            f"{dataset} is at hand here, so its results are made here: take the name out of "
            f"at_hand in {PARAMS} to show those of {folder}"
        )
    if not (folder / PARAMS).exists():
        raise SettingsError(f"{folder} is no checkout of this project: it holds no {PARAMS}")
    contents: dict[Path, bytes] = {}
    with chdir(folder):
        theirs = load()
        evaluations = find_evaluations(dataset, theirs)
        for evaluation in evaluations:
            parse_evaluation(evaluation.key, ours)  # whether this params.yaml has its names
            check_equal(evaluation, ours, theirs)
            for path in (evaluation.scores, evaluation.queries):
                contents[path] = path.read_bytes()
        own = [each for each in evaluations if each == own_evaluation(each.run)]
        lines = list_runs([read_run(each.run, own) for each in own])
    for path, content in contents.items():
        write_whole(path, content)
    write_whole(RUN_LIST, to_csv(keep_others(lines), "%.6g"))
    return list(dict.fromkeys(evaluation.run for evaluation in evaluations))


def main() -> None:
    options = parser(__doc__, "pipeline.import_results")
    options.add_argument("folder", type=Path, help="the other checkout")
    options.add_argument("dataset", help="of datasets in params.yaml")
    arguments = options.parse_args()
    runs = import_results(arguments.folder, arguments.dataset)
    plan = load_plan()
    write(plan)
    shown = {evaluation.run for evaluation in plan.foreign_evaluations()}
    for run in runs:
        print(run.key + ("" if run in shown else ", which no table shows"))
    print(f"{len(runs)} runs of {arguments.dataset}. Their tables: make repro ONLY=<table>")


if __name__ == "__main__":
    command(main)
