"""Scores of a trained run -> results/scores/<run>.json.

python -m pipeline.evaluate synthetic base quick 0
"""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
import torch

from ianet import drawing, images, retrieval, single_shot
from ianet.features import extract
from ianet.network import load as load_network
from ianet.retrieval import Scores
from pipeline import tracking
from pipeline.parts import part_of
from pipeline.plan import DESCRIPTION, Run
from pipeline.settings import load
from pipeline.shell import run_arguments, stage, write_whole

SCORINGS = {"ranking": retrieval.evaluate, "single_shot": single_shot.evaluate}
"""By the name that the reader gives, see `ianet.datasets.listing.Listing`."""


def score(run: Run, *, hold_out: bool, size: str) -> Scores:
    """Scores on test, or, for a recipe that holds out, on the held-out identities."""
    table = pd.read_parquet(run.prepared / "table.parquet")
    part = part_of(table, run.seed, hold_out=hold_out)
    network = load_network(run.folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arguments: dict[str, Any] = {}
    for name in ("query", "gallery"):
        mask = (part == name).to_numpy(copy=True)
        packed = images.load(run.prepared / f"{size}.npy", mask)
        arguments[f"{name}_features"] = extract(network, packed, device=device)
        arguments[f"{name}_ids"] = table.person[mask].to_numpy()
        arguments[f"{name}_cameras"] = table.camera[mask].to_numpy()
    description = json.loads((run.prepared / DESCRIPTION).read_text())
    return SCORINGS[description["scoring"]](**arguments)


def main() -> None:
    run = Run(**run_arguments(__doc__))
    recipe = load().recipes[run.recipe]
    scores = score(run, hold_out=recipe.hold_out, size=recipe.size)
    cmc = [round(float(fraction), 6) for fraction in scores.cmc]
    written = {
        **run._asdict(),
        "split": "held-out" if recipe.hold_out else "test",
        "top-1": cmc[0],
        "top-5": cmc[4],
        "top-10": cmc[9],
        "mAP": _rounded(scores.mAP),
        "mINP": _rounded(scores.mINP),
        "queries": scores.queries,
        "cmc": cmc,
    }
    digest = (run.folder / "digest.txt").read_text()
    with tracking.evaluation(run, digest) as tracked:
        tracked.scores(written, drawing.cmc_curve(cmc, run.key))
    write_whole(run.scores, json.dumps(written, indent=2) + "\n")
    mean = "" if written["mAP"] is None else f", mAP {written['mAP']:.1%}"
    print(f"{run.key}: top-1 {cmc[0]:.1%}{mean} on {written['split']}")


def _rounded(score: float) -> float | None:
    """None, in JSON null, for what the data set's protocol does not define."""
    return None if math.isnan(score) else round(score, 6)


if __name__ == "__main__":
    with stage():
        main()
