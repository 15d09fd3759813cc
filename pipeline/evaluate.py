"""Scores of a trained run -> results/scores/<run>.json, each query's -> results/queries.

    python -m pipeline.evaluate synthetic base quick 0 synthetic

The last word is the data set that is scored: the run's own, or across domains another.
"""

from __future__ import annotations

import json

import pandas as pd

from ianet import drawing
from ianet.network import Network
from ianet.network import load as load_network
from pipeline import address, tracking
from pipeline.plan import PREPARED, Evaluation, Run, check_prepared, checked, files_of
from pipeline.scoring import TOP, assessed
from pipeline.settings import RecipeSettings, Settings, check_known, load
from pipeline.shell import run_parser, stage, write_whole
from pipeline.storage import Storage


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument("on", help="data set that is scored")
    arguments = vars(parser.parse_args())
    on = arguments.pop("on")
    settings = load()
    check_known(on, settings.datasets, "the command", "datasets of params.yaml")
    evaluation = Evaluation(checked(Run(**arguments), settings), on)
    address.take(settings)
    recipe = settings.recipes[evaluation.run.recipe]
    check_prepared(on, recipe.size)
    network = load_network(evaluation.run.folder)
    digest = (evaluation.run.folder / "digest.txt").read_text()
    with tracking.evaluation(evaluation.run, digest) as tracked:
        _evaluate(evaluation, network, recipe, settings, tracked)


def _evaluate(
    evaluation: Evaluation,
    network: Network,
    recipe: RecipeSettings,
    settings: Settings,
    tracked: tracking.Tracked,
) -> None:
    on = evaluation.on
    storage = Storage(settings.cluster.storage)
    seed, hold_out = evaluation.run.seed, recipe.hold_out
    place = storage.shared(PREPARED / on, files_of(recipe.size))
    scores = assessed(network, place, recipe.size, storage, seed, hold_out=hold_out)
    each = scores.cmc
    # Under the names of their means, so that a table's column names its contributions too.
    contributions = pd.concat(
        [each[list(TOP)].rename(columns="top-{}".format), scores.means], axis=1
    )
    cmc = [round(float(fraction), 6) for fraction in each.mean()]
    written = {
        **evaluation.run._asdict(),
        "on": on,
        "split": "held-out" if recipe.hold_out else "test",
        **{
            name: None if value is None else round(value, 6)
            for name, value in scores.summary().items()
        },
        # Of the rows of S, in parts of a uniform row's; null in a network without SIA.
        "entropy": None if scores.entropy is None else round(scores.entropy, 6),
        "queries": len(each),
        "without_match": scores.without_match,
        "cmc": cmc,
    }
    write_whole(evaluation.queries, contributions.astype("float32").to_parquet())
    write_whole(evaluation.scores, json.dumps(written, indent=2) + "\n")
    tracked.scores(written, drawing.cmc_curve(cmc, evaluation.key))
    mean = "" if written["mAP"] is None else f", mAP {written['mAP']:.1%}"
    out = f", {scores.without_match} queries without a match" if scores.without_match else ""
    print(f"{evaluation.key}: top-1 {cmc[0]:.1%}{mean} on {written['split']}{out}")


if __name__ == "__main__":
    with stage():
        main()
