"""A trained and scored run -> models/<key>: a folder that `ianet.load` and the command ianet take.

    python -m pipeline.stages.model synthetic.base.quick.0

The model says what its user must know, and the scores of the run on its data set with their
intervals. MLflow gets the same folder as a version of the registered model <data set>.<network>.
"""

from __future__ import annotations

import shutil

from ianet.comparison import bound_score
from ianet.model import save_model
from ianet.model_description import ModelScores
from ianet.network import load as load_network
from pipeline.config.settings import load
from pipeline.plan.plan import Plan, own_evaluation
from pipeline.plan.records import read_queries, read_record, read_scores
from pipeline.plan.runs import Evaluation, Run, parse_run
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
    datasets = [each.dataset for each in [*plan.starts(run), run]]
    return " ".join(dict.fromkeys(plan.settings.datasets[name].terms for name in datasets))


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
