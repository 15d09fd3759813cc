"""Scores of a trained run -> results/<data set>/scores/<key>.json, and of each query -> queries.

    python -m pipeline.stages.evaluate synthetic.base.quick.0
    python -m pipeline.stages.evaluate market1501.base.paper.0.dukemtmc

A fifth name in the key is the data set that is scored, across domains.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pandas as pd

from ianet.cameras import label_cameras
from ianet.files import write_whole
from pipeline.cluster.environment import prepare
from pipeline.cluster.storage import Storage
from pipeline.config.settings import load
from pipeline.plan.records import read_record
from pipeline.plan.runs import Evaluation, check_prepared, parse_evaluation
from pipeline.scoring import TOP, Scores, score_run
from pipeline.shell import command, emit, parser
from pipeline.tracking.training import send_run


def describe(evaluation: Evaluation, scores: Scores, *, hold_out: bool) -> dict[str, Any]:
    """The content of the file of scores; fractions, null where the protocol defines no score."""
    record = read_record(evaluation.run)
    cmc = [round(float(fraction), 6) for fraction in scores.cmc.mean()]
    return {
        "key": evaluation.key,
        **evaluation.run._asdict(),
        "on": evaluation.on,
        "split": "held-out" if hold_out else "test",
        "cameras": scores.cameras,
        **{
            name: None if value is None else round(value, 6)
            for name, value in scores.summary().items()
        },
        # Of the rows of S, in parts of a uniform row's; null in a network without SIA.
        "entropy": None if scores.entropy is None else round(scores.entropy, 6),
        "multiply_adds": scores.multiply_adds,  # of an image
        "blocks": [asdict(block) for block in scores.blocks],
        "queries": len(scores.cmc),
        "without_match": scores.without_match,
        "cmc": cmc,
        "weights": evaluation.run.weights_digest(),
        "torch": record["environment"]["torch"],
        "machine": record["environment"]["device"],  # of the training
    }


def main() -> None:
    options = parser(__doc__, "pipeline.stages.evaluate")
    options.add_argument("key", help="<data set>.<network>.<recipe>.<seed>[.<scored data set>]")
    key = options.parse_args().key
    settings = load()
    evaluation = parse_evaluation(key, settings)
    recipe = settings.recipes[evaluation.run.recipe]
    check_prepared(evaluation.on, recipe.size)
    prepare(settings)
    scores = score_run(
        evaluation.run.folder,
        evaluation.on,
        recipe.size,
        Storage(settings.cluster.storage),
        evaluation.run.seed,
        hold_out=recipe.hold_out,
    )
    # Under the names of their means, so that a table's column names its contributions too.
    contributions = pd.concat(
        [scores.cmc[list(TOP)].rename(columns="top-{}".format), scores.means], axis=1
    )
    queries = scores.queries.join(contributions.astype("float32"))
    content = describe(evaluation, scores, hold_out=recipe.hold_out)
    write_whole(evaluation.queries, queries.to_parquet())
    write_whole(evaluation.scores, json.dumps(content, indent=2) + "\n")
    mean = "" if content["mAP"] is None else f", mAP {content['mAP']:.1%}"
    alone = content["without_match"]
    lost = f", {alone} queries without a match" if alone else ""
    summary = (
        f"{evaluation.key}: top-1 {content['top-1']:.1%}{mean} on {content['split']}"
        f"{label_cameras(scores.cameras)}{lost}"
    )
    emit("scored", summary=summary)
    print(summary)
    send_run(evaluation.run)


if __name__ == "__main__":
    command(main)
