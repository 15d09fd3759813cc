"""The text of dvc.yaml and searches/dvc.yaml, from a plan."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ianet.files import write_whole
from pipeline.config.experiments import (
    EXPERIMENTS,
    SEARCH_PREFIX,
    BlockTable,
    CostTable,
    Curve,
    RankedLists,
    RelationFigure,
    ScoreTable,
    Table,
)
from pipeline.config.settings import SettingsError
from pipeline.plan.plan import Plan, image_sets, own_evaluation, unique_runs
from pipeline.plan.runs import (
    DESCRIPTION,
    HISTORY,
    MODEL_WEIGHTS,
    MODELS,
    PREPARED,
    RESULTS,
    RUNS,
    TABLE,
    Run,
)
from pipeline.plan.sources import SOURCES, input_files

PIPELINE = Path("dvc.yaml")
SEARCH_PIPELINE = Path("searches/dvc.yaml")  # apart, as a plain `dvc repro` does not search
TABLES = RESULTS / "tables"
FIGURES = RESULTS / "figures"
RANKS = RESULTS / "ranks"
SEARCH_RESULTS = RESULTS / "searches"
REPORT = RESULTS / "report.html"
RUN_LIST = RESULTS / "runs.csv"
TABLE_FORMATS = ("csv", "md", "tex", "html")
HEADER = "# Written by `python -m pipeline.plan` from params.yaml and experiments/: edit those.\n"
CURVES = {"loss": "training loss", "accuracy": "training accuracy"}

Stage = dict[str, Any]


def render(plan: Plan) -> dict[Path, str]:
    """The text of both files, by path."""
    return {
        PIPELINE: _dump(build_pipeline(plan)),
        SEARCH_PIPELINE: _dump(build_search_pipeline(plan)),
    }


def write(plan: Plan) -> None:
    """Write the files of `render` that differ from the plan.

    Raises:
        SettingsError: a data set at hand does not lie where params.yaml says.
    """
    names = {name for name, _ in _image_sets(plan)}
    for name in dict.fromkeys([*plan.settings.at_hand, *names]):
        dataset = plan.settings.datasets[name]
        if dataset.synthetic is None and not dataset.source.exists():
            raise SettingsError(
                f"{dataset.source} does not exist: put the data set {name} there, or set "
                f"datasets.{name}.source in params.yaml (see docs/data.md)"
            )
    for path, text in render(plan).items():
        if is_stale(path, text):
            write_whole(path, text)


def is_stale(path: Path, text: str) -> bool:
    """Whether a file lacks a text of `render`, or is missing or damaged.

    Raises:
        SettingsError: a folder, a pipe or a device is in the place of the file.
    """
    if not path.exists():
        return True
    if not path.is_file():
        raise SettingsError(f"{path} is no regular file: delete it, and run the command again")
    return path.read_bytes() != text.encode()


def build_pipeline(plan: Plan) -> dict[str, Any]:
    """The content of dvc.yaml."""
    evaluations = plan.evaluations()
    runs = unique_runs(evaluations)
    stages: dict[str, Stage] = {
        "plan": {
            "desc": "dvc.yaml is what params.yaml and experiments/ ask for",
            "cmd": "python -m pipeline.plan --check",
            "deps": [str(EXPERIMENTS)],
            "params": ["at_hand", "datasets", "recipes", "networks"],
        },
        "sources": _sources_stage(plan),
        "synthesize": _synthesize_stage(plan),
        "prepare": _prepare_stage(plan),
        "pack": _pack_stage(plan),
        "train": _train_stage(plan),
        "evaluate": _evaluate_stage(plan),
        "model": _model_stage(plan),
    }
    for name, experiment in plan.experiments.items():
        if isinstance(experiment, Table):
            stages[name] = _table_stage(name, experiment, plan)
        elif isinstance(experiment, Curve):
            stages[name] = _curve_stage(name, experiment, plan)
        elif isinstance(experiment, BlockTable):
            stages[name] = _block_stage(name, experiment, plan)
        elif isinstance(experiment, CostTable):
            stages[name] = _cost_stage(name, experiment)
        elif isinstance(experiment, RelationFigure):
            stages[name] = _figure_stage(name, experiment, plan)
        elif isinstance(experiment, RankedLists):
            stages[name] = _ranks_stage(name, experiment, plan)
    stages["report"] = _report_stage(stages, plan)
    histories = [str(run.folder / HISTORY) for run in runs]
    plots = [
        {name: {"x": "epoch", "y": dict.fromkeys(histories, name), "title": title}}
        for name, title in CURVES.items()
    ]
    return {"stages": stages, "plots": plots}


def list_outputs(stage: Stage) -> list[str]:
    """The outputs of a stage."""
    return [output if isinstance(output, str) else next(iter(output)) for output in stage["outs"]]


def build_search_pipeline(plan: Plan) -> dict[str, Any]:
    """The content of searches/dvc.yaml, whose commands and paths are those of the root."""
    if not plan.searches:
        return {"stages": {}}
    stage = {
        "foreach": {
            name: {
                "dataset": search.dataset,
                "network": search.network,
                "recipe": search.recipe,
                "size": plan.settings.recipes[search.recipe].size,
                "start": _start(plan, Run(search.dataset, search.network, search.recipe, 0)),
            }
            for name, search in plan.searches.items()
        },
        "do": {
            "wdir": "..",
            "desc": "search options by trials, each a training, on held-out identities",
            "cmd": "python -m pipeline.stages.search ${key}",
            "deps": [
                f"{EXPERIMENTS}/{SEARCH_PREFIX}${{key}}.yaml",
                f"{PREPARED}/${{item.dataset}}/{TABLE}",
                f"{PREPARED}/${{item.dataset}}/${{item.size}}.npy",
                f"{PREPARED}/${{item.dataset}}/{DESCRIPTION}",
                f"{SOURCES}/networks/${{item.network}}/train.json",
                f"{SOURCES}/networks/${{item.network}}/evaluate.json",
                f"{SOURCES}/recipes/${{item.recipe}}.json",
                "${item.start}",
                *(_code(stage) for stage in ("train", "evaluate", "search")),
            ],
            # DVC would delete the results when the search starts: a stop would lose them.
            "outs": [{f"{SEARCH_RESULTS}/${{key}}": {"cache": False, "persist": True}}],
        },
    }
    return {"stages": {"search": stage}}


def _code(stage: str) -> str:
    return f"{SOURCES}/stages/{stage}.json"


def _small(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Outputs small enough for git."""
    return [{str(path): {"cache": False}} for path in paths]


def _sources_stage(plan: Plan) -> Stage:
    return {
        "desc": "what each network, recipe and data set is made of: options, files and code",
        "cmd": "python -m pipeline.plan.sources",
        "deps": ["ianet", "pipeline", *map(str, input_files(plan.settings))],
        "params": ["at_hand", "networks", "recipes", "datasets"],
        "outs": _small([SOURCES]),
    }


def _image_sets(plan: Plan) -> list[tuple[str, str]]:
    """Data set and size of what runs and searches need, each once."""
    settings = plan.settings
    searches = [
        (search.dataset, settings.recipes[search.recipe].size) for search in plan.searches.values()
    ]
    return list(dict.fromkeys([*image_sets(plan.evaluations(), settings), *searches]))


def _synthesize_stage(plan: Plan) -> Stage:
    sets = dict.fromkeys(name for name, _ in _image_sets(plan))
    return {
        "foreach": {
            name: {"target": _source(plan, name)}
            for name in sets
            if plan.settings.datasets[name].synthetic is not None
        },
        "do": {
            "desc": "draw a data set of synthetic people",
            "cmd": "python -m pipeline.stages.synthesize ${key}",
            "deps": [_code("synthesize")],
            "params": ["datasets.${key}.synthetic"],
            "outs": ["${item.target}"],
        },
    }


def _prepare_stage(plan: Plan) -> Stage:
    datasets = dict.fromkeys(name for name, _ in _image_sets(plan))
    return {
        "foreach": {name: {"source": _source(plan, name)} for name in datasets},
        "do": {
            "desc": "a table of the images, and how they are scored",
            "cmd": "python -m pipeline.stages.prepare ${key}",
            "deps": ["${item.source}", f"{SOURCES}/datasets/${{key}}.json", _code("prepare")],
            "outs": [f"{PREPARED}/${{key}}/{name}" for name in (TABLE, DESCRIPTION)],
        },
    }


def _source(plan: Plan, dataset: str) -> str:
    return str(plan.settings.datasets[dataset].source)


def _pack_stage(plan: Plan) -> Stage:
    return {
        "foreach": {
            f"{name}.{size}": {"dataset": name, "size": size, "source": _source(plan, name)}
            for name, size in _image_sets(plan)
        },
        "do": {
            "desc": "the images, decoded and resized, in one array",
            "cmd": "python -m pipeline.stages.pack ${key}",
            "deps": [
                "${item.source}",
                f"{PREPARED}/${{item.dataset}}/{TABLE}",
                f"{SOURCES}/datasets/${{item.dataset}}.json",
                _code("pack"),
            ],
            "outs": [f"{PREPARED}/${{item.dataset}}/${{item.size}}.npy"],
        },
    }


def _train_stage(plan: Plan) -> Stage:
    return {
        "foreach": {
            run.key: {
                "dataset": run.dataset,
                "network": run.network,
                "recipe": run.recipe,
                "size": plan.settings.recipes[run.recipe].size,
                "start": _start(plan, run),
            }
            for run in unique_runs(plan.evaluations())
        },
        "do": {
            "desc": "train a network under Ray Train",
            "cmd": "python -m pipeline.stages.train ${key}",
            "deps": [
                f"{PREPARED}/${{item.dataset}}/{TABLE}",
                f"{PREPARED}/${{item.dataset}}/${{item.size}}.npy",
                f"{SOURCES}/networks/${{item.network}}/train.json",
                f"{SOURCES}/recipes/${{item.recipe}}.json",
                "${item.start}",
                _code("train"),
            ],
            "outs": [f"{RUNS}/${{key}}"],
        },
    }


def _start(plan: Plan, run: Run) -> str:
    """The weights that a run starts from, if another run trains them, else its recipe.

    All stages of a group have the same number of dependencies. The recipe is one of them anyway.
    """
    start = plan.start(run)
    return str(start.model / MODEL_WEIGHTS if start else SOURCES / f"recipes/{run.recipe}.json")


def _evaluate_stage(plan: Plan) -> Stage:
    return {
        "foreach": {
            evaluation.key: {
                "run": evaluation.run.key,
                "network": evaluation.run.network,
                "recipe": evaluation.run.recipe,
                "on": evaluation.on,
                "size": plan.settings.recipes[evaluation.run.recipe].size,
            }
            for evaluation in plan.evaluations()
        },
        "do": {
            "desc": "CMC and mAP of a trained network",
            "cmd": "python -m pipeline.stages.evaluate ${key}",
            "deps": [
                f"{PREPARED}/${{item.on}}/{TABLE}",
                f"{PREPARED}/${{item.on}}/${{item.size}}.npy",
                f"{PREPARED}/${{item.on}}/{DESCRIPTION}",
                f"{RUNS}/${{item.run}}",
                f"{SOURCES}/networks/${{item.network}}/evaluate.json",
                f"{SOURCES}/recipes/${{item.recipe}}.json",
                _code("evaluate"),
            ],
            "metrics": [{f"{RESULTS}/${{item.on}}/scores/${{key}}.json": {"cache": False}}],
            # Not in DVC's cache, as git holds those of data that cannot be had everywhere.
            "outs": _small([RESULTS / "${item.on}/queries/${key}.parquet"]),
        },
    }


def _model_stage(plan: Plan) -> Stage:
    return {
        "foreach": {
            evaluation.key: {
                "dataset": evaluation.on,
                # Of the data that the training started from, or again of the run's own data.
                "start": (plan.start(evaluation.run) or evaluation.run).dataset,
            }
            for evaluation in plan.evaluations()
            if evaluation.is_own
        },
        "do": {
            "desc": "a folder with a trained network and all that its user must know",
            "cmd": "python -m pipeline.stages.model ${key}",
            "deps": [
                f"{RUNS}/${{key}}",
                f"{RESULTS}/${{item.dataset}}/scores/${{key}}.json",
                f"{RESULTS}/${{item.dataset}}/queries/${{key}}.parquet",
                f"{SOURCES}/terms/${{item.dataset}}.json",
                f"{SOURCES}/terms/${{item.start}}.json",
                _code("model"),
            ],
            "outs": [f"{MODELS}/${{key}}"],
        },
    }


def _score_files(name: str, table: ScoreTable, plan: Plan) -> list[str]:
    """The files that `pipeline.report.cells.read_results` reads for a table."""
    files = [f"{EXPERIMENTS}/{name}.yaml"]
    for row, evaluations in plan.rows(table):
        for evaluation in evaluations:
            for each in (evaluation, plan.baseline(row, evaluation)):
                if each is not None:
                    files += [str(each.scores), str(each.queries)]
    return list(dict.fromkeys(files))


def _table_stage(name: str, table: Table, plan: Plan) -> Stage:
    return {
        "desc": table.title,
        "cmd": f"python -m pipeline.stages.table {name}",
        "deps": [*_score_files(name, table, plan), _code("table")],
        "outs": _small(
            TABLES / f"{name}.{kind}"
            for kind in (*TABLE_FORMATS, *(["svg"] if plan.is_compared(table) else []))
        ),
    }


def _curve_stage(name: str, curve: Curve, plan: Plan) -> Stage:
    return {
        "desc": curve.title,
        "cmd": f"python -m pipeline.stages.curve {name}",
        "deps": [*_score_files(name, curve, plan), _code("curve")],
        "outs": _small([FIGURES / f"{name}.svg", TABLES / f"{name}.csv"]),
    }


def _block_stage(name: str, table: BlockTable, plan: Plan) -> Stage:
    evaluations = [evaluation for _, row in plan.rows(table) for evaluation in row]
    return {
        "desc": table.title,
        "cmd": f"python -m pipeline.stages.blocks {name}",
        "deps": [
            f"{EXPERIMENTS}/{name}.yaml",
            *(str(evaluation.scores) for evaluation in evaluations),
            _code("blocks"),
        ],
        "outs": _small(TABLES / f"{name}.{kind}" for kind in TABLE_FORMATS),
    }


def _cost_stage(name: str, table: CostTable) -> Stage:
    networks = dict.fromkeys(row.network for row in table.rows)
    return {
        "desc": table.title,
        "cmd": f"python -m pipeline.stages.cost {name}",
        "deps": [
            f"{EXPERIMENTS}/{name}.yaml",
            *(f"{SOURCES}/networks/{network}/train.json" for network in networks),
            f"{SOURCES}/recipes/{table.recipe}.json",
            _code("cost"),
        ],
        "outs": _small(TABLES / f"{name}.{kind}" for kind in TABLE_FORMATS),
    }


def _figure_stage(name: str, figure: RelationFigure, plan: Plan) -> Stage:
    [run] = plan.shown_runs(figure)  # the plan holds no figure without a run
    return {
        "desc": figure.title,
        "cmd": f"python -m pipeline.stages.figure {name}",
        "deps": [
            f"{EXPERIMENTS}/{name}.yaml",
            str(run.folder),
            f"{SOURCES}/networks/{run.network}/figure.json",
            _code("figure"),
        ],
        "params": [f"datasets.{run.dataset}.synthetic.seed"],
        "outs": _small([FIGURES / f"{name}.svg"]),
    }


def _ranks_stage(name: str, lists: RankedLists, plan: Plan) -> Stage:
    runs = plan.shown_runs(lists)
    dataset, size = runs[0].dataset, plan.settings.recipes[runs[0].recipe].size
    return {
        "desc": lists.title,
        "cmd": f"python -m pipeline.stages.ranks {name}",
        "deps": [
            f"{EXPERIMENTS}/{name}.yaml",
            f"{PREPARED}/{dataset}/{TABLE}",
            f"{PREPARED}/{dataset}/{DESCRIPTION}",
            f"{PREPARED}/{dataset}/{size}.npy",
            *(str(run.folder) for run in runs),
            *(str(own_evaluation(run).queries) for run in runs),
            *(f"{SOURCES}/networks/{run.network}/evaluate.json" for run in runs),
            _code("ranks"),
        ],
        "outs": [f"{RANKS}/{name}.html"],  # pictures make it too large for git
    }


def _report_stage(stages: dict[str, Stage], plan: Plan) -> Stage:
    """The page depends on the files of all other stages that it shows."""
    evaluations = plan.evaluations()
    files = [
        path
        for stage in stages.values()
        for output in stage.get("outs", [])
        if isinstance(output, dict)
        for path in output
        if path.startswith(f"{RESULTS}/")
    ]
    ranks = [
        str(RANKS / f"{name}.html")
        for name, experiment in plan.experiments.items()
        if isinstance(experiment, RankedLists)
    ]
    return {
        "desc": "all tables, figures and curves on one page",
        "cmd": "python -m pipeline.stages.report",
        "deps": [
            *files,
            *ranks,
            *(str(each.scores) for each in (*evaluations, *plan.foreign_evaluations())),
            *(str(run.folder) for run in unique_runs(evaluations)),
            _code("report"),
        ],
        "outs": [
            str(REPORT),  # pictures make it too large for git
            # Lines of runs that other data at hand had made stay.
            {str(RUN_LIST): {"cache": False, "persist": True}},
        ],
    }


class _Dumper(yaml.SafeDumper):
    """YAML without anchors, which `dvc exp run -S` does not support."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump(content: dict[str, Any]) -> str:
    return HEADER + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100)
