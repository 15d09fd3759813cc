"""Scores of a trained run -> results/scores/<run>.json, each query's -> results/queries.

    python -m pipeline.evaluate synthetic base quick 0 synthetic

The last word is the data set that is scored: the run's own, or across domains another.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import torch

from ianet import drawing, images
from ianet.features import extract
from ianet.network import load as load_network
from ianet.retrieval import per_query, summarize
from pipeline import tracking
from pipeline.plan import PREPARED, Evaluation, Run
from pipeline.settings import RecipeSettings, load
from pipeline.shell import run_parser, stage, write_whole

CMC = ("top-1", "top-5", "top-10")


def scored(evaluation: Evaluation, recipe: RecipeSettings) -> pd.DataFrame:
    """Scores of each query of test, or, where the recipe holds out, of the held-out identities.

    Returns:
        As `ianet.retrieval.per_query`; the index is the query's row in the prepared table.
    """
    prepared = PREPARED / evaluation.on
    table = pd.read_parquet(prepared / "table.parquet")
    part = table.held_out if recipe.hold_out else table.split
    network = load_network(evaluation.run.folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments: dict[str, Any] = {}
    for name in ("query", "gallery"):
        mask = (part == name).to_numpy(copy=True)
        packed = images.load(prepared / f"{recipe.size}.npy", mask)
        arguments[f"{name}_features"] = extract(network, packed, device=device)
        arguments[f"{name}_ids"] = table.person[mask].to_numpy()
        arguments[f"{name}_cameras"] = table.camera[mask].to_numpy()
    found = per_query(**arguments)
    return found.set_index(table.index[part == "query"][found.index])


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument("on", help="data set that is scored")
    arguments = vars(parser.parse_args())
    on = arguments.pop("on")
    evaluation = Evaluation(Run(**arguments), on)
    recipe = load().recipes[evaluation.run.recipe]
    queries = scored(evaluation, recipe)
    scores = summarize(queries)
    cmc = [round(float(fraction), 6) for fraction in scores.cmc]
    written = {
        **evaluation.run._asdict(),
        "on": on,
        "split": "held-out" if recipe.hold_out else "test",
        **{name: cmc[int(name.removeprefix("top-")) - 1] for name in CMC},
        "mAP": round(scores.mAP, 6),
        "mINP": round(scores.mINP, 6),
        "queries": scores.queries,
        "cmc": cmc,
    }
    # Under the names of their means, so that a table's column names its contributions too.
    contributions = pd.DataFrame(
        {
            **{name: queries.first_rank <= int(name.removeprefix("top-")) for name in CMC},
            "mAP": queries.average_precision,
            "mINP": queries.inverse_negative_penalty,
        }
    ).astype("float32")
    digest = (evaluation.run.folder / "digest.txt").read_text()
    with tracking.evaluation(evaluation.run, digest) as tracked:
        tracked.scores(written, drawing.cmc_curve(cmc, evaluation.key))
    write_whole(evaluation.queries, contributions.to_parquet())
    write_whole(evaluation.scores, json.dumps(written, indent=2) + "\n")
    print(f"{evaluation.key}: top-1 {cmc[0]:.1%}, mAP {scores.mAP:.1%} on {written['split']}")


if __name__ == "__main__":
    with stage():
        main()
