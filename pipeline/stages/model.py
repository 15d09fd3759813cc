"""A trained and scored run -> models/<key>: a folder that `ianet.load` and the command ianet take.

    python -m pipeline.stages.model synthetic.base.quick.0

The model says what its user must know, and the scores of the run on its data set with their
intervals. MLflow gets the same folder as a version of the registered model <data set>.<network>.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import asdict

from ianet.comparison import bound_score
from ianet.model import CONFIG, load_description, save_model
from ianet.model_description import ModelScores
from ianet.network import load as load_network
from pipeline.config.settings import Settings, build_network, load
from pipeline.plan.plan import Plan, own_evaluation
from pipeline.plan.records import read_queries, read_record, read_scores
from pipeline.plan.runs import Evaluation, Run, parse_run
from pipeline.plan.sources import weight_files
from pipeline.shell import command, parser
from pipeline.tracking.training import send_run

MODEL_SCORES = ("top-1", "mAP", "mINP")


def describe_scores(evaluation: Evaluation) -> ModelScores:
    """What a model says of an evaluation.

    Raises:
        FileNotFoundError, ValueError: the run was not evaluated, or a file is damaged.
    """
    content = read_scores(evaluation)
    queries = read_queries(evaluation)
    persons = queries.person.tolist()
    bounds = {name: bound_score(queries[name], persons) for name in MODEL_SCORES if name in queries}
    return ModelScores(
        evaluation.on if content["split"] == "test" else f"{evaluation.on}, {content['split']}",
        len(queries),
        len(set(persons)),
        bounds["top-1"],
        bounds.get("mAP"),
        bounds.get("mINP"),
        content["cameras"],
    )


def join_terms(run: Run, plan: Plan) -> str:
    """The terms of all data that a run has seen: its own, and before those of its starts."""
    runs = [*plan.starts(run), run]
    terms = [plan.settings.datasets[each.dataset].terms for each in runs]
    return " ".join(dict.fromkeys([*read_terms(runs[0], plan.settings), *terms]))


def read_terms(run: Run, settings: Settings) -> list[str]:
    """The terms of the model, made elsewhere, from which a run starts; none of other weights."""
    options = build_network(
        run.network, settings.networks[run.network], settings.recipes[run.recipe]
    )
    for file in weight_files(asdict(options)):
        source = file.parent if (file.parent / CONFIG).is_file() else file
        with suppress(OSError, ValueError):  # weights alone, or a folder of another program
            return [load_description(source).terms]
    return []


def main() -> None:
    options = parser(__doc__, "pipeline.stages.model")
    options.add_argument("key", help="of the run: <data set>.<network>.<recipe>.<seed>")
    key = options.parse_args().key
    plan = Plan(load(), {})  # starts of runs are settings alone
    run = parse_run(key, plan.settings)
    scores = describe_scores(own_evaluation(run))
    network = load_network(run.folder)
    shutil.rmtree(run.model, ignore_errors=True)
    save_model(
        network,
        network.description,
        run.model,
        name=key,
        terms=join_terms(run, plan),
        scores=(scores,),
        commit=read_record(run)["commit"],
    )
    print(f"{run.model}: top-1 {scores.top_1.value:.1%} on {scores.dataset}")
    send_run(run)


if __name__ == "__main__":
    command(main)
