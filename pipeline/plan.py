"""experiments/*.yaml and the data sets at hand -> every run, each once -> dvc.yaml.

    python -m pipeline.plan            write dvc.yaml
    python -m pipeline.plan --check    fail where dvc.yaml is not what would be written

A run is a (data set, network, recipe, seed). It is trained once, however many tables name it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.settings import (
    EXPERIMENTS,
    Experiment,
    Row,
    Settings,
    SettingsError,
    experiments,
    load,
)
from pipeline.shell import stage, write_whole

PIPELINE = Path("dvc.yaml")
SYNTHETIC = Path("data/synthetic.zip")
PREPARED = Path("data/prepared")
DESCRIPTION = "dataset.json"  # of a prepared data set
HEADER = "# Written by `python -m pipeline.plan` from params.yaml and experiments/: edit those.\n"


class Run(NamedTuple):
    """One training."""

    dataset: str
    network: str
    recipe: str
    seed: int

    @property
    def key(self) -> str:
        """Its name everywhere: stages, folders, MLflow."""
        return f"{self.dataset}-{self.network}-{self.recipe}-{self.seed}"

    @property
    def prepared(self) -> Path:
        """What `prepare` writes for its data set."""
        return PREPARED / self.dataset

    @property
    def folder(self) -> Path:
        """What `train` writes."""
        return Path("runs") / self.key


class Evaluation(NamedTuple):
    """The scores of a run on a data set: its own, or across domains another."""

    run: Run
    on: str

    @property
    def key(self) -> str:
        return self.run.key if self.on == self.run.dataset else f"{self.run.key}-on-{self.on}"

    @property
    def scores(self) -> Path:
        """Means over the queries."""
        return Path("results/scores") / f"{self.key}.json"

    @property
    def queries(self) -> Path:
        """The scores of each query."""
        return Path("results/queries") / f"{self.key}.parquet"


def datasets_of(
    experiment: Experiment, settings: Settings, tables: Mapping[str, Experiment]
) -> list[str]:
    """The data sets at hand that a table shows: those for which the paper prints numbers in it,
    and those for which it prints none anywhere, such as the synthetic set or your own.
    """
    elsewhere = {name for table in tables.values() for name in table.printed}
    return [
        name
        for name in settings.at_hand
        if not experiment.printed or name in experiment.printed or name not in elsewhere
    ]


def evaluations_of(
    experiment: Experiment, settings: Settings, tables: Mapping[str, Experiment]
) -> list[tuple[Row, list[Evaluation]]]:
    """What each row of a table needs: for each data set that it shows, one for each seed."""
    return [
        (
            row,
            [
                evaluation
                for on in datasets_of(experiment, settings, tables)
                for evaluation in _evaluations(row.network, row, on, settings)
            ],
        )
        for row in experiment.rows
    ]


def compared_with(row: Row, evaluation: Evaluation) -> Evaluation | None:
    """What an evaluation of a row is compared with: `against`, all else being equal."""
    if row.against is None:
        return None
    return evaluation._replace(run=evaluation.run._replace(network=row.against))


def _evaluations(network: str | None, row: Row, on: str, settings: Settings) -> list[Evaluation]:
    name = row.trained_on or on
    dataset = settings.datasets[name]
    recipe = dataset.recipes.get(row.recipe)
    limited = dataset.networks != "all" and network not in dataset.networks
    if network is None or recipe is None or limited or name not in settings.at_hand:
        return []
    return [Evaluation(Run(name, network, recipe, seed), on) for seed in dataset.seeds]


def plan(settings: Settings, tables: Mapping[str, Experiment]) -> list[Evaluation]:
    """Everything that a table names, each once."""
    return list(
        dict.fromkeys(
            evaluation
            for table in tables.values()
            for _, evaluations in evaluations_of(table, settings, tables)
            for evaluation in evaluations
        )
    )


def runs_of(evaluations: Iterable[Evaluation]) -> list[Run]:
    """The trainings behind them, each once."""
    return list(dict.fromkeys(evaluation.run for evaluation in evaluations))


def pipeline(settings: Settings, tables: Mapping[str, Experiment]) -> dict[str, Any]:
    """The content of dvc.yaml."""
    evaluations = plan(settings, tables)
    runs = runs_of(evaluations)
    sizes: dict[str, set[str]] = {}
    for run, on in [*evaluations, *((run, run.dataset) for run in runs)]:
        sizes.setdefault(on, set()).add(settings.recipes[run.recipe].size)
    size = {run: settings.recipes[run.recipe].size for run in runs}
    arguments = "${item.dataset} ${item.network} ${item.recipe} ${item.seed}"
    return {
        "stages": {
            "plan": {
                "desc": "dvc.yaml is what params.yaml and experiments/ ask for",
                "cmd": "python -m pipeline.plan --check",
                "deps": [str(EXPERIMENTS)],
                "params": ["at_hand", "datasets", "recipes", "networks"],
            },
            "sources": {
                "desc": "the code that each network and reader really import: only its edits count",
                "cmd": "python -m pipeline.sources",
                "deps": ["ianet", "pipeline/sources.py"],
                "params": ["networks", "datasets"],
                "outs": [
                    {"build/sources": {"cache": False}},
                    {"build/readers": {"cache": False}},
                ],
            },
            "synthesize": {
                "desc": "draw the synthetic benchmark",
                "cmd": "python -m pipeline.synthesize",
                "deps": ["ianet/datasets/synthetic.py", "pipeline/synthesize.py"],
                "params": ["synthetic"],
                "outs": [str(SYNTHETIC)],
            },
            "prepare": {
                "foreach": {
                    name: {
                        "reader": settings.datasets[name].reader,
                        "source": str(settings.datasets[name].source),
                        "sizes": " ".join(sorted(own)),
                    }
                    for name, own in sizes.items()
                },
                "do": {
                    "desc": "a table of the images, and the images packed at the runs' sizes",
                    "cmd": "python -m pipeline.prepare ${key} ${item.sizes}",
                    "deps": [
                        "${item.source}",
                        "build/readers/${item.reader}.json",
                        "pipeline/prepare.py",
                        "pipeline/parts.py",
                        "pipeline/readers.py",
                    ],
                    "params": [
                        "datasets.${key}.reader",
                        "datasets.${key}.source",
                        "datasets.${key}.options",
                        "datasets.${key}.published",
                        "datasets.${key}.held_out",
                    ],
                    "outs": ["data/prepared/${key}"],
                },
            },
            "train": {
                "foreach": {run.key: {**run._asdict(), "size": size[run]} for run in runs},
                "do": {
                    "desc": "train a network under Ray Train",
                    "cmd": f"python -m pipeline.train {arguments}",
                    "deps": [
                        "data/prepared/${item.dataset}/table.parquet",
                        "data/prepared/${item.dataset}/${item.size}.npy",
                        "build/sources/${item.network}/train.json",
                        "pipeline/driver.py",
                        "pipeline/worker.py",
                        "pipeline/parts.py",
                    ],
                    "params": ["networks.${item.network}", "recipes.${item.recipe}"],
                    "outs": ["runs/${key}"],
                },
            },
            "evaluate": {
                "foreach": {
                    one.key: {
                        **one.run._asdict(),
                        "on": one.on,
                        "run": one.run.key,
                        "size": size[one.run],
                    }
                    for one in evaluations
                },
                "do": {
                    "desc": "CMC and mAP of a trained network",
                    "cmd": f"python -m pipeline.evaluate {arguments} ${{item.on}}",
                    "deps": [
                        "data/prepared/${item.on}/table.parquet",
                        "data/prepared/${item.on}/${item.size}.npy",
                        f"data/prepared/${{item.on}}/{DESCRIPTION}",
                        "runs/${item.run}",
                        "build/sources/${item.network}/evaluate.json",
                        "pipeline/evaluate.py",
                        "pipeline/parts.py",
                    ],
                    "params": ["recipes.${item.recipe}"],
                    "metrics": [{"results/scores/${key}.json": {"cache": False}}],
                    "outs": ["results/queries/${key}.parquet"],
                },
            },
            **{name: _table_stage(name, table, settings, tables) for name, table in tables.items()},
        }
    }


def _table_stage(
    name: str, table: Experiment, settings: Settings, tables: Mapping[str, Experiment]
) -> dict[str, Any]:
    deps = [f"{EXPERIMENTS}/{name}.yaml", "pipeline/table.py"]
    for row, evaluations in evaluations_of(table, settings, tables):
        for one in evaluations:
            deps.append(str(one.scores))
            other = compared_with(row, one)
            if other is not None:
                deps += [str(one.queries), str(other.queries)]
    return {
        "desc": table.title,
        "cmd": f"python -m pipeline.table {name}",
        "deps": list(dict.fromkeys(deps)),
        "outs": [
            {f"results/tables/{name}.{kind}": {"cache": False}}
            for kind in ("csv", "md", "tex", "html")
        ],
    }


def rendered(settings: Settings, tables: Mapping[str, Experiment]) -> str:
    """dvc.yaml as text."""
    dumper = yaml.SafeDumper
    # DVC's `exp run -S` does not bear YAML anchors.
    dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
    return HEADER + yaml.dump(pipeline(settings, tables), Dumper=dumper, sort_keys=False, width=100)


def write(settings: Settings, tables: Mapping[str, Experiment]) -> None:
    """dvc.yaml, where it is not what the settings ask for.

    Raises:
        SettingsError: a data set at hand does not lie where it should.
    """
    for name in settings.at_hand:
        dataset = settings.datasets[name]
        if dataset.source != SYNTHETIC and not dataset.source.exists():
            raise SettingsError(
                f"{dataset.source} does not exist: put the data set {name} there, or set "
                f"datasets.{name}.source in params.yaml (see docs/data.md)"
            )
    text = rendered(settings, tables)
    if not PIPELINE.exists() or PIPELINE.read_text() != text:
        write_whole(PIPELINE, text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.plan", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = parser.parse_args().check
    settings = load()
    tables = experiments(settings)
    if not check:
        write(settings, tables)
        runs = len(runs_of(plan(settings, tables)))
        at_hand = ", ".join(settings.at_hand)
        print(f"{PIPELINE}: {runs} runs for {len(tables)} tables on {at_hand}")
    elif not PIPELINE.exists() or PIPELINE.read_text() != rendered(settings, tables):
        raise SettingsError(
            f"{PIPELINE} is older than params.yaml or {EXPERIMENTS}/: run "
            "`python -m pipeline.plan`, then `dvc repro` again"
        )


if __name__ == "__main__":
    with stage():
        main()
