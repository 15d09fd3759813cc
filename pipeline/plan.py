"""experiments/*.yaml and the data sets at hand -> every run, each once -> dvc.yaml.

    python -m pipeline.plan            write dvc.yaml
    python -m pipeline.plan --check    fail where dvc.yaml is not what would be written

A run is a (data set, network, recipe, seed). It is trained once, however many tables name it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.settings import (
    EXPERIMENTS,
    Experiment,
    Figure,
    Settings,
    SettingsError,
    experiments,
    load,
)
from pipeline.shell import stage, write_whole

PIPELINE = Path("dvc.yaml")
SYNTHETIC = Path("data/synthetic.zip")
PREPARED = Path("data/prepared")
HEADER = "# Written by `python -m pipeline.plan` from params.yaml and experiments/: edit those.\n"


class Run(NamedTuple):
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

    @property
    def scores(self) -> Path:
        """What `evaluate` writes."""
        return Path("results/scores") / f"{self.key}.json"


def runs_of(experiment: Experiment | Figure, settings: Settings) -> list[Run]:
    """The runs that a table needs on the data sets at hand, in the order of its rows.

    A figure shows synthetic people as one run sees them: the first seed of its network, or none
    where the synthetic set is not at hand or does without that network.
    """
    at_hand = {name: settings.datasets[name] for name in settings.at_hand}
    if isinstance(experiment, Figure):
        return [
            Run(name, experiment.network, dataset.recipe, dataset.seeds[0])
            for name, dataset in at_hand.items()
            if dataset.source == SYNTHETIC and dataset.runs(experiment.network)
        ][:1]
    return list(
        dict.fromkeys(
            Run(name, row.network, dataset.recipe, seed)
            for name, dataset in at_hand.items()
            for row in experiment.rows
            for seed in dataset.seeds
            if dataset.runs(row.network)
        )
    )


def plan(settings: Settings, wanted: Mapping[str, Experiment | Figure]) -> list[Run]:
    """Every run that a table or a figure names, each once."""
    return list(dict.fromkeys(run for one in wanted.values() for run in runs_of(one, settings)))


def pipeline(settings: Settings, wanted: Mapping[str, Experiment | Figure]) -> dict[str, Any]:
    """The content of dvc.yaml."""
    runs = plan(settings, wanted)
    tables = {name: one for name, one in wanted.items() if isinstance(one, Experiment)}
    figures = {
        name: (one, run)
        for name, one in wanted.items()
        if isinstance(one, Figure)
        for run in runs_of(one, settings)
    }
    sizes: dict[str, set[str]] = {}
    for run in runs:
        sizes.setdefault(run.dataset, set()).add(settings.recipes[run.recipe].size)
    by_run = {run.key: {**run._asdict(), "size": settings.recipes[run.recipe].size} for run in runs}
    arguments = "${item.dataset} ${item.network} ${item.recipe} ${item.seed}"
    prepared = [
        "data/prepared/${item.dataset}/table.parquet",
        "data/prepared/${item.dataset}/${item.size}.npy",
    ]
    return {
        "stages": {
            "plan": {
                "desc": "dvc.yaml is what params.yaml and experiments/ ask for",
                "cmd": "python -m pipeline.plan --check",
                "deps": [str(EXPERIMENTS)],
                "params": ["at_hand", "datasets", "recipes", "networks"],
            },
            "sources": {
                "desc": "the code that each network really imports, so that only its edits count",
                "cmd": "python -m pipeline.sources",
                "deps": ["ianet", "pipeline/sources.py"],
                "params": ["networks"],
                "outs": [{"build/sources": {"cache": False}}],
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
                        "ianet/datasets/${item.reader}.py",
                        "ianet/datasets/source.py",
                        "ianet/images.py",
                        "pipeline/prepare.py",
                    ],
                    "params": [
                        "datasets.${key}.reader",
                        "datasets.${key}.source",
                        "datasets.${key}.published",
                        "datasets.${key}.held_out",
                    ],
                    "outs": ["data/prepared/${key}"],
                },
            },
            "train": {
                "foreach": by_run,
                "do": {
                    "desc": "train a network under Ray Train",
                    "cmd": f"python -m pipeline.train {arguments}",
                    "deps": [
                        *prepared,
                        "build/sources/${item.network}/train.json",
                        "pipeline/driver.py",
                        "pipeline/worker.py",
                    ],
                    "params": ["networks.${item.network}", "recipes.${item.recipe}"],
                    "outs": ["runs/${key}"],
                },
            },
            "evaluate": {
                "foreach": by_run,
                "do": {
                    "desc": "CMC and mAP of a trained network",
                    "cmd": f"python -m pipeline.evaluate {arguments}",
                    "deps": [
                        *prepared,
                        "runs/${key}",
                        "build/sources/${item.network}/evaluate.json",
                        "pipeline/evaluate.py",
                    ],
                    "params": ["recipes.${item.recipe}"],
                    "metrics": [{"results/scores/${key}.json": {"cache": False}}],
                },
            },
            **{
                name: {
                    "desc": f"{table.title} of the paper",
                    "cmd": f"python -m pipeline.table {name}",
                    "deps": [
                        f"{EXPERIMENTS}/{name}.yaml",
                        "pipeline/table.py",
                        *(str(run.scores) for run in runs_of(table, settings)),
                    ],
                    "outs": [
                        {f"results/tables/{name}.{kind}": {"cache": False}}
                        for kind in ("csv", "md", "html")
                    ],
                }
                for name, table in tables.items()
            },
            **{
                name: {
                    "desc": f"{figure.title} of the paper",
                    "cmd": f"python -m pipeline.figure {name}",
                    "deps": [
                        f"{EXPERIMENTS}/{name}.yaml",
                        str(run.folder),
                        f"build/sources/{run.network}/figure.json",
                        "pipeline/figure.py",
                    ],
                    "params": ["synthetic.seed"],
                    "outs": [{f"results/figures/{name}.svg": {"cache": False}}],
                }
                for name, (figure, run) in figures.items()
            },
        }
    }


def rendered(settings: Settings, wanted: Mapping[str, Experiment | Figure]) -> str:
    """dvc.yaml as text."""
    dumper = yaml.SafeDumper
    # DVC's `exp run -S` does not bear YAML anchors.
    dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
    return HEADER + yaml.dump(pipeline(settings, wanted), Dumper=dumper, sort_keys=False, width=100)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.plan", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = parser.parse_args().check
    settings = load()
    wanted = experiments(settings)
    for name in settings.at_hand:
        dataset = settings.datasets[name]
        if dataset.source != SYNTHETIC and not dataset.source.exists():
            raise SettingsError(
                f"{dataset.source} does not exist: put the data set {name} there, or set "
                f"datasets.{name}.source in params.yaml (see docs/data.md)"
            )
    text = rendered(settings, wanted)
    runs = plan(settings, wanted)
    if check:
        if not PIPELINE.exists() or PIPELINE.read_text() != text:
            raise SettingsError(
                f"{PIPELINE} is older than params.yaml or {EXPERIMENTS}/: run "
                "`python -m pipeline.plan`, then `dvc repro` again"
            )
        return
    if not PIPELINE.exists() or PIPELINE.read_text() != text:
        write_whole(PIPELINE, text)
    print(f"{PIPELINE}: {len(runs)} runs for {', '.join(wanted)} on {', '.join(settings.at_hand)}")


if __name__ == "__main__":
    with stage():
        main()
