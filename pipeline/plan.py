"""experiments/*.yaml and the data sets at hand -> every run, each once -> dvc.yaml.

    python -m pipeline.plan            write dvc.yaml
    python -m pipeline.plan --check    fail where dvc.yaml is not what would be written

A run is a (data set, network, recipe, seed). It is trained once, however many tables name it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from pipeline.experiments import (
    EXPERIMENTS,
    Costs,
    Curve,
    Portraits,
    Row,
    Scored,
    Search,
    Sheet,
    Table,
    experiments,
)
from pipeline.settings import Settings, SettingsError, check_known, load
from pipeline.shell import stage, write_whole

Kind = TypeVar("Kind", bound=Sheet)

PIPELINE = Path("dvc.yaml")
SEARCHES = Path("searches/dvc.yaml")  # `dvc repro` makes the tables, not these
SYNTHETIC = Path("data/synthetic.zip")
PREPARED = Path("data/prepared")
TABLE, DESCRIPTION = "table.parquet", "dataset.json"  # of a prepared data set
TABLES = Path("results/tables")
FIGURES = Path("results/figures")
REPORT = Path("results/report.html")
TRAINING = (
    "pipeline/driver.py",
    "pipeline/worker.py",
    "pipeline/parts.py",
    "pipeline/process_group.py",
    "pipeline/storage.py",
)
PAGE = ("pipeline/page.py", "pipeline/page.html.jinja")
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


class Plan:
    """What the tables and figures need of the data sets at hand."""

    def __init__(self, settings: Settings, sheets: Mapping[str, Sheet]) -> None:
        """`sheets` are experiments/; those that have nothing to show with the data sets at hand,
        such as a table across domains with one data set, are left out of the plan.
        """
        self.settings = settings
        self._described = sheets
        self.sheets = {name: sheet for name, sheet in sheets.items() if self._shows(sheet)}
        self.searches = {
            name.removeprefix("search_"): sheet
            for name, sheet in sheets.items()
            if isinstance(sheet, Search) and sheet.dataset in settings.at_hand
        }

    def _shows(self, sheet: Sheet) -> bool:
        if isinstance(sheet, Portraits):
            return self.portrayed(sheet) is not None
        if isinstance(sheet, Scored):
            return bool(sheet.printed) or any(own for _, own in self.rows(sheet))
        return not isinstance(sheet, Search)

    def datasets(self, sheet: Scored) -> list[str]:
        """The data sets at hand that a sheet shows: those for which the paper prints numbers in
        it, and those for which it prints none anywhere, such as the synthetic set or your own.
        """
        scored = [one for one in self._described.values() if isinstance(one, Scored)]
        elsewhere = {name for one in scored for name in one.printed}
        return [
            name
            for name in self.settings.at_hand
            if not sheet.printed or name in sheet.printed or name not in elsewhere
        ]

    def rows(self, sheet: Scored) -> list[tuple[Row, list[Evaluation]]]:
        """What each row needs: for each data set that the sheet shows, one for each seed."""
        return [
            (row, [one for on in self.datasets(sheet) for one in self._evaluations(row, on)])
            for row in sheet.rows
        ]

    def _evaluations(self, row: Row, on: str) -> list[Evaluation]:
        name = row.trained_on or on
        dataset = self.settings.datasets[name]
        recipe = dataset.recipes.get(row.recipe)
        if row.network is None or recipe is None or name not in self.settings.at_hand:
            return []
        if not dataset.runs(row.network):
            return []
        return [Evaluation(Run(name, row.network, recipe, seed), on) for seed in dataset.seeds]

    def compared_with(self, row: Row, evaluation: Evaluation) -> Evaluation | None:
        """What an evaluation of a row is compared with: `against`, all else being equal; none where
        the data set does without that network.
        """
        run = evaluation.run
        if row.against is None or not self.settings.datasets[run.dataset].runs(row.against):
            return None
        return evaluation._replace(run=run._replace(network=row.against))

    def portrayed(self, sheet: Portraits) -> Run | None:
        """The run whose view of synthetic people a figure shows: the first seed of its network,
        or none where the synthetic set is not at hand or does without that network.
        """
        for name in self.settings.at_hand:
            dataset = self.settings.datasets[name]
            if dataset.source == SYNTHETIC and dataset.runs(sheet.network):
                return Run(name, sheet.network, dataset.recipes["plain"], dataset.seeds[0])
        return None

    def evaluations(self, names: Iterable[str] = ()) -> list[Evaluation]:
        """What the named sheets need, each once; without a name, all of them.

        Raises:
            SettingsError: a name that no sheet has.
        """
        chosen = [self.sheet(name, Sheet) for name in names] or list(self.sheets.values())
        needed = [
            one
            for sheet in chosen
            if isinstance(sheet, Scored)
            for _, evaluations in self.rows(sheet)
            for one in evaluations
        ]
        for sheet in chosen:
            if isinstance(sheet, Portraits) and (run := self.portrayed(sheet)):
                needed.append(Evaluation(run, run.dataset))
        return list(dict.fromkeys(needed))

    def sheet(self, name: str, kind: type[Kind]) -> Kind:
        """The table or figure of that name.

        Raises:
            SettingsError: there is none, it is of another kind, or shows no data set at hand.
        """
        sheet = self.described(name, kind)
        if name not in self.sheets:
            raise SettingsError(
                f"{EXPERIMENTS / name}.yaml shows no data set at hand: choose "
                f"{', '.join(self.sheets)}"
            )
        return sheet

    def described(self, name: str, kind: type[Kind]) -> Kind:
        """The file of that name in experiments/, whether or not there is anything to show.

        Raises:
            SettingsError: there is none, or it is of another kind.
        """
        sheet = self._described.get(name)
        if isinstance(sheet, kind) and not isinstance(sheet, Search):
            return sheet
        lacks = "is of another kind" if sheet else "does not exist"
        if isinstance(sheet, Search):
            lacks = "is a search, which `make search` runs"
        own = [each for each, one in self.sheets.items() if isinstance(one, kind)]
        raise SettingsError(f"{EXPERIMENTS / name}.yaml {lacks}: choose {', '.join(own)}")


def checked(run: Run, settings: Settings) -> Run:
    """A run that a command names.

    Raises:
        ValueError: params.yaml lacks its data set, network or recipe.
    """
    check_known(run.dataset, settings.datasets, "the command", "datasets of params.yaml")
    check_known(run.network, settings.networks, "the command", "networks of params.yaml")
    check_known(run.recipe, settings.recipes, "the command", "recipes of params.yaml")
    return run


def load_plan() -> Plan:
    """Of params.yaml and experiments/.

    Raises:
        SettingsError: a mistake in them.
    """
    settings = load()
    return Plan(settings, experiments(settings))


def files_of(size: str) -> tuple[str, ...]:
    """What a run needs of a prepared data set, with images of that size, height x width."""
    return TABLE, DESCRIPTION, f"{size}.npy"


def check_prepared(dataset: str, size: str) -> None:
    """Refuse a data set whose images are not there at that size.

    Raises:
        FileNotFoundError: it says what makes them.
    """
    for name in files_of(size):
        if not (path := PREPARED / dataset / name).exists():
            raise FileNotFoundError(
                f"{path} does not exist: `dvc repro pack@{dataset}-{size}` makes it"
            )


def runs_of(evaluations: Iterable[Evaluation]) -> list[Run]:
    """The trainings behind them, each once."""
    return list(dict.fromkeys(evaluation.run for evaluation in evaluations))


def packed_of(evaluations: Iterable[Evaluation], settings: Settings) -> list[tuple[str, str]]:
    """The data sets whose images they need, at which size, each once."""
    needed = [
        (name, settings.recipes[run.recipe].size)
        for run, on in evaluations
        for name in (run.dataset, on)
    ]
    return list(dict.fromkeys(needed))


def pipeline(plan: Plan) -> dict[str, Any]:
    """The content of dvc.yaml."""
    settings, evaluations = plan.settings, plan.evaluations()
    runs = runs_of(evaluations)
    size = {run: settings.recipes[run.recipe].size for run in runs}
    packed = packed_of(evaluations, settings)
    for search in plan.searches.values():
        packed.append((search.dataset, settings.recipes[search.recipe].size))
    source = {name: str(settings.datasets[name].source) for name, _ in packed}
    arguments = "${item.dataset} ${item.network} ${item.recipe} ${item.seed}"
    stages: dict[str, Any] = {
        "plan": {
            "desc": "dvc.yaml is what params.yaml and experiments/ ask for",
            "cmd": "python -m pipeline.plan --check",
            "deps": [str(EXPERIMENTS)],
            "params": ["at_hand", "datasets", "recipes", "networks"],
        },
        "sources": {
            "desc": "what each network, recipe and data set is made of: options and code",
            "cmd": "python -m pipeline.sources",
            "deps": ["ianet", "pipeline/sources.py"],
            "params": ["networks", "recipes", "datasets"],
            "outs": _written("build/sources"),
        },
        "synthesize": {
            "desc": "draw the synthetic benchmark",
            "cmd": "python -m pipeline.synthesize",
            "deps": ["ianet/datasets/synthetic.py", "pipeline/synthesize.py"],
            "params": ["synthetic"],
            "outs": [str(SYNTHETIC)],
        },
        "prepare": {
            "foreach": {name: {"source": path} for name, path in source.items()},
            "do": {
                "desc": "a table of the images, and how they are scored",
                "cmd": "python -m pipeline.prepare ${key}",
                "deps": [
                    "${item.source}",
                    "build/sources/datasets/${key}.json",
                    "pipeline/prepare.py",
                    "pipeline/parts.py",
                    "pipeline/readers.py",
                ],
                "outs": [f"data/prepared/${{key}}/{name}" for name in (TABLE, DESCRIPTION)],
            },
        },
        "pack": {
            "foreach": {
                f"{name}-{pixels}": {"dataset": name, "size": pixels, "source": source[name]}
                for name, pixels in dict.fromkeys(packed)
            },
            "do": {
                "desc": "the images, decoded and resized, in one array",
                "cmd": "python -m pipeline.pack ${item.dataset} ${item.size}",
                "deps": [
                    "${item.source}",
                    f"data/prepared/${{item.dataset}}/{TABLE}",
                    "build/sources/datasets/${item.dataset}.json",
                    "build/sources/packing.json",
                    "pipeline/pack.py",
                    "pipeline/readers.py",
                ],
                "outs": ["data/prepared/${item.dataset}/${item.size}.npy"],
            },
        },
        "train": {
            "foreach": {run.key: {**run._asdict(), "size": size[run]} for run in runs},
            "do": {
                "desc": "train a network under Ray Train",
                "cmd": f"python -m pipeline.train {arguments}",
                "deps": [
                    f"data/prepared/${{item.dataset}}/{TABLE}",
                    "data/prepared/${item.dataset}/${item.size}.npy",
                    "build/sources/networks/${item.network}/train.json",
                    "build/sources/recipes/${item.recipe}.json",
                    *TRAINING,
                ],
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
                    f"data/prepared/${{item.on}}/{TABLE}",
                    "data/prepared/${item.on}/${item.size}.npy",
                    f"data/prepared/${{item.on}}/{DESCRIPTION}",
                    "runs/${item.run}",
                    "build/sources/networks/${item.network}/evaluate.json",
                    "build/sources/recipes/${item.recipe}.json",
                    "pipeline/evaluate.py",
                    "pipeline/scoring.py",
                    "pipeline/parts.py",
                ],
                "metrics": [{"results/scores/${key}.json": {"cache": False}}],
                "outs": ["results/queries/${key}.parquet"],
            },
        },
    }
    for name, sheet in plan.sheets.items():
        if isinstance(sheet, Table):
            stages[name] = _table_stage(name, sheet, plan)
        elif isinstance(sheet, Curve):
            stages[name] = _curve_stage(name, sheet, plan)
        elif isinstance(sheet, Costs):
            stages[name] = _cost_stage(name, sheet, plan)
        elif isinstance(sheet, Portraits):
            stages[name] = _portraits_stage(name, sheet, plan)
    stages["report"] = _report_stage(stages, evaluations)
    histories = [str(run.folder / "history.csv") for run in runs]
    plots = [
        {name: {"x": "epoch", "y": dict.fromkeys(histories, name), "title": title}}
        for name, title in (("loss", "training loss"), ("accuracy", "training accuracy"))
    ]
    return {"stages": stages, "plots": plots}


def _written(*paths: Path | str) -> list[dict[str, Any]]:
    """Outputs small enough for git."""
    return [{str(path): {"cache": False}} for path in paths]


def _table_stage(name: str, sheet: Table, plan: Plan) -> dict[str, Any]:
    return {
        "desc": sheet.title,
        "cmd": f"python -m pipeline.table {name}",
        "deps": [*_scored_deps(name, sheet, plan), *PAGE],
        "outs": _written(*(TABLES / f"{name}.{kind}" for kind in ("csv", "md", "tex", "html"))),
    }


def _scored_deps(name: str, sheet: Scored, plan: Plan) -> list[str]:
    """What `pipeline.table.read` and `cells` need."""
    deps = [f"{EXPERIMENTS}/{name}.yaml", "pipeline/table.py", "build/sources/comparison.json"]
    for row, evaluations in plan.rows(sheet):
        for one in evaluations:
            deps.append(str(one.scores))
            other = plan.compared_with(row, one)
            if other is not None:
                deps += [str(one.queries), str(other.queries)]
    return list(dict.fromkeys(deps))


def _curve_stage(name: str, sheet: Curve, plan: Plan) -> dict[str, Any]:
    return {
        "desc": sheet.title,
        "cmd": f"python -m pipeline.curve {name}",
        "deps": [
            *_scored_deps(name, sheet, plan),
            "build/sources/drawing.json",
            "pipeline/curve.py",
        ],
        "outs": _written(FIGURES / f"{name}.svg", TABLES / f"{name}.csv"),
    }


def _cost_stage(name: str, sheet: Costs, plan: Plan) -> dict[str, Any]:
    networks = list(dict.fromkeys(row.network for row in sheet.rows))
    recipes = [plan.settings.datasets[one].recipes["plain"] for one in plan.settings.at_hand]
    return {
        "desc": sheet.title,
        "cmd": f"python -m pipeline.cost {name}",
        "deps": [
            f"{EXPERIMENTS}/{name}.yaml",
            "pipeline/cost.py",
            *PAGE,
            "build/sources/cost.json",
            *(f"build/sources/networks/{network}/train.json" for network in networks),
            *dict.fromkeys(
                f"build/sources/recipes/{name}.json" for name in [sheet.recipe, *recipes]
            ),
        ],
        "outs": _written(*(TABLES / f"{name}.{kind}" for kind in ("csv", "md", "tex", "html"))),
    }


def _portraits_stage(name: str, sheet: Portraits, plan: Plan) -> dict[str, Any]:
    run = plan.portrayed(sheet)
    assert run is not None  # else it would not be in the plan
    return {
        "desc": sheet.title,
        "cmd": f"python -m pipeline.figure {name}",
        "deps": [
            f"{EXPERIMENTS}/{name}.yaml",
            str(run.folder),
            f"build/sources/networks/{run.network}/figure.json",
            "pipeline/figure.py",
        ],
        "params": ["synthetic.seed"],
        "outs": _written(FIGURES / f"{name}.svg"),
    }


def _report_stage(stages: Mapping[str, Any], evaluations: Iterable[Evaluation]) -> dict[str, Any]:
    """It shows what all others wrote."""
    shown = [
        path
        for one in stages.values()
        for out in one.get("outs", [])
        if isinstance(out, dict)
        for path in out
        if path.startswith("results/")
    ]
    return {
        "desc": "all tables, figures and curves on one page",
        "cmd": "python -m pipeline.report",
        "deps": [
            "build/sources/drawing.json",
            "pipeline/report.py",
            *PAGE,
            *shown,
            *(str(one.scores) for one in evaluations),
            *(str(run.folder) for run in runs_of(evaluations)),
        ],
        "outs": [str(REPORT)],  # pictures make it too large for git
    }


def searching(plan: Plan) -> dict[str, Any]:
    """The content of searches/dvc.yaml, whose commands and paths are the root's."""
    stages = {
        "search": {
            "foreach": {
                name: {
                    "dataset": search.dataset,
                    "network": search.network,
                    "recipe": search.recipe,
                    "size": plan.settings.recipes[search.recipe].size,
                }
                for name, search in plan.searches.items()
            },
            "do": {
                "wdir": "..",
                "desc": "search options by trials, each a training, on held-out identities",
                "cmd": "python -m pipeline.search ${key}",
                "deps": [
                    f"{EXPERIMENTS}/search_${{key}}.yaml",
                    f"data/prepared/${{item.dataset}}/{TABLE}",
                    "data/prepared/${item.dataset}/${item.size}.npy",
                    f"data/prepared/${{item.dataset}}/{DESCRIPTION}",
                    "build/sources/networks/${item.network}/train.json",
                    "build/sources/networks/${item.network}/evaluate.json",
                    "build/sources/recipes/${item.recipe}.json",
                    *TRAINING,
                    "pipeline/scoring.py",
                    "pipeline/search.py",
                    "pipeline/space.py",
                    "pipeline/trial.py",
                    "pipeline/trials.py",
                ],
                "outs": _written("results/searches/${key}"),
            },
        }
    }
    return {"stages": stages if plan.searches else {}}


def rendered(plan: Plan) -> dict[Path, str]:
    """dvc.yaml, and that of the searches, as text."""
    return {PIPELINE: _dumped(pipeline(plan)), SEARCHES: _dumped(searching(plan))}


def _dumped(content: dict[str, Any]) -> str:
    dumper = yaml.SafeDumper
    # DVC's `exp run -S` does not bear YAML anchors.
    dumper.ignore_aliases = lambda self, data: True  # type: ignore[method-assign]
    return HEADER + yaml.dump(content, Dumper=dumper, sort_keys=False, width=100)


def write(plan: Plan) -> None:
    """The files of `rendered`, where they are not what the settings ask for.

    Raises:
        SettingsError: a data set at hand does not lie where it should.
    """
    for name in plan.settings.at_hand:
        source = plan.settings.datasets[name].source
        if source != SYNTHETIC and not source.exists():
            raise SettingsError(
                f"{source} does not exist: put the data set {name} there, or set "
                f"datasets.{name}.source in params.yaml (see docs/data.md)"
            )
    for path, text in rendered(plan).items():
        if not path.exists() or path.read_text() != text:
            write_whole(path, text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.plan", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = parser.parse_args().check
    plan = load_plan()
    if not check:
        write(plan)
        runs = len(runs_of(plan.evaluations()))
        print(f"{PIPELINE}: {runs} runs for {len(plan.sheets)} tables and figures")
        return
    for path, text in rendered(plan).items():
        if not path.exists() or path.read_text() != text:
            raise SettingsError(
                f"{path} is older than params.yaml or {EXPERIMENTS}/: run "
                "`python -m pipeline.plan`, then `dvc repro` again"
            )


if __name__ == "__main__":
    with stage():
        main()
