"""Scores of a trained run -> results/scores/<run>.json, each query's -> results/queries.

    python -m pipeline.evaluate synthetic base quick 0 synthetic

The last word is the data set that is scored: the run's own, or across domains another.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from ianet import drawing, images, retrieval, single_shot
from ianet.features import extract
from ianet.network import load as load_network
from ianet.receptive import relation_entropy
from pipeline import tracking
from pipeline.parts import part_of
from pipeline.plan import DESCRIPTION, PREPARED, Evaluation, Run, checked
from pipeline.settings import RecipeSettings, check_known, load
from pipeline.shell import run_parser, stage, write_whole

RANKS = np.arange(1, 51)
TOP = (1, 5, 10)
ENTROPY_IMAGES = 16  # queries over which it is averaged: it hardly differs between images
MEANS = {"mAP": "average_precision", "mINP": "inverse_negative_penalty"}


def ranking(**arguments: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """CMC (Q, ranks) and further scores of each query, by `ianet.retrieval`."""
    queries = retrieval.per_query(**arguments)
    cmc = queries.first_rank.to_numpy()[:, None] <= RANKS
    means = {name: queries[column] for name, column in MEANS.items()}
    return pd.DataFrame(cmc, queries.index, RANKS), pd.DataFrame(means)


def single_gallery_shot(**arguments: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same by `ianet.single_shot`, which defines CMC only."""
    cmc = single_shot.per_query(**arguments, max_rank=len(RANKS))
    return cmc, pd.DataFrame(index=cmc.index)


SCORINGS = {"ranking": ranking, "single_shot": single_gallery_shot}
"""By the name that the reader gives, see `ianet.datasets.listing.Listing`."""


class Scored(NamedTuple):
    """CMC and further scores of each query, by its row in the prepared table; entropy of S."""

    cmc: pd.DataFrame
    means: pd.DataFrame
    entropy: float | None


def scored(evaluation: Evaluation, recipe: RecipeSettings) -> Scored:
    """Scores on test, or, where the recipe holds out, on the held-out identities."""
    prepared = PREPARED / evaluation.on
    table = pd.read_parquet(prepared / "table.parquet")
    part = part_of(table, evaluation.run.seed, hold_out=recipe.hold_out)
    network = load_network(evaluation.run.folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments: dict[str, Any] = {}
    for name in ("query", "gallery"):
        mask = (part == name).to_numpy(copy=True)
        packed = images.load(prepared / f"{recipe.size}.npy", mask)
        if name == "query":
            entropy = relation_entropy(network, packed[:ENTROPY_IMAGES])
        arguments[f"{name}_features"] = extract(network, packed, device=device)
        arguments[f"{name}_ids"] = table.person[mask].to_numpy()
        arguments[f"{name}_cameras"] = table.camera[mask].to_numpy()
    description = json.loads((prepared / DESCRIPTION).read_text())
    cmc, means = SCORINGS[description["scoring"]](**arguments)
    rows = table.index[part == "query"][cmc.index]
    return Scored(cmc.set_index(rows), means.set_index(rows), entropy)


def main() -> None:
    parser = run_parser(__doc__)
    parser.add_argument("on", help="data set that is scored")
    arguments = vars(parser.parse_args())
    on = arguments.pop("on")
    settings = load()
    check_known(on, settings.datasets, "the command", "datasets of params.yaml")
    evaluation = Evaluation(checked(Run(**arguments), settings), on)
    recipe = settings.recipes[evaluation.run.recipe]
    each, means, entropy = scored(evaluation, recipe)
    # Under the names of their means, so that a table's column names its contributions too.
    contributions = pd.concat([each[list(TOP)].rename(columns="top-{}".format), means], axis=1)
    cmc = [round(float(fraction), 6) for fraction in each.mean()]
    written = {
        **evaluation.run._asdict(),
        "on": on,
        "split": "held-out" if recipe.hold_out else "test",
        **{f"top-{rank}": cmc[rank - 1] for rank in TOP},
        # Null where the protocol of the data set does not define it.
        **{name: round(float(means[name].mean()), 6) if name in means else None for name in MEANS},
        # Of the rows of S, in parts of a uniform row's; null in a network without SIA.
        "entropy": None if entropy is None else round(entropy, 6),
        "queries": len(each),
        "cmc": cmc,
    }
    digest = (evaluation.run.folder / "digest.txt").read_text()
    with tracking.evaluation(evaluation.run, digest) as tracked:
        tracked.scores(written, drawing.cmc_curve(cmc, evaluation.key))
    write_whole(evaluation.queries, contributions.astype("float32").to_parquet())
    write_whole(evaluation.scores, json.dumps(written, indent=2) + "\n")
    mean = "" if written["mAP"] is None else f", mAP {written['mAP']:.1%}"
    print(f"{evaluation.key}: top-1 {cmc[0]:.1%}{mean} on {written['split']}")


if __name__ == "__main__":
    with stage():
        main()
