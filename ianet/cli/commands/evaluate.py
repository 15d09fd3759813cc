"""`ianet evaluate`: scores of a model on a data set."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ianet.cli.shared import (
    Batch,
    Cameras,
    Dataset,
    Device,
    Flip,
    Json,
    ModelSource,
    Precision,
    Reader,
    ReaderOptions,
    SkipBad,
    parse_options,
    print_json,
    print_note,
    print_table,
    show_step,
)


def evaluate(
    model: ModelSource,
    dataset: Dataset,
    reader: Reader = None,
    option: ReaderOptions = None,
    cameras: Cameras = "respect",
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Rank by k-reciprocal neighbours.")
    ] = False,
    pool: Annotated[
        Literal["none", "mean"],
        typer.Option(
            help="mean: pictures of a person in the same folder and from the same camera, such as "
            "a tracklet, count as one picture, with the mean feature. Pictures of people without "
            "a query, such as distractors, count singly."
        ),
    ] = "none",
    batch: Batch = 64,
    device: Device = "auto",
    precision: Precision = "float32",
    flip: Flip = False,
    skip_bad: SkipBad = False,
    json: Json = False,
) -> None:
    """Score a model on a data set: CMC, mAP and mINP with 95 % intervals.

    The intervals come from random people with replacement. They hold for people like those of the
    set.

    Examples:

    \b
      ianet evaluate MODEL data/Market-1501-v15.09.15.zip
      ianet evaluate MODEL photos --reader persons --cameras ignore
      ianet evaluate MODEL people.csv --flip --rerank --json
    """
    from dataclasses import asdict
    from functools import partial

    from ianet.calibration import describe_doubt
    from ianet.cli.embedding import embed
    from ianet.evaluation import embed_test, list_test
    from ianet.evaluation import evaluate as score
    from ianet.model import load
    from ianet.readers import read_source
    from ianet.reranking import KReciprocal

    loaded = load(model)
    listing = read_source(dataset, reader, parse_options(option))
    doubt = describe_doubt(loaded.description.dataset, listing.table, dataset)
    if doubt:
        print_note(f"warning: {doubt}")
    embed_pictures = partial(
        embed,
        loaded,
        batch=batch,
        device=device,
        precision=precision,
        flip=flip,
        skip_bad=skip_bad,
    )
    tables = embed_test(*list_test(listing, dataset), embed_pictures)
    with show_step("scoring"):
        result = score(
            *tables,
            cameras=cameras,
            pool=pool,
            reranking=KReciprocal() if rerank else None,
            scoring=listing.scoring,
        )
    if json:
        print_json(
            {
                "model": loaded.identity._asdict(),
                "dataset": str(dataset),
                "cameras": cameras,
                "rerank": rerank,
                "flip": flip,
                "pool": pool,
                "queries": result.queries,
                "identities": result.identities,
                "without_match": result.without_match,
                "gallery": result.gallery,
                "scores": {name: asdict(score) for name, score in result.scores.items()},
                "cmc": result.cmc.tolist(),
            }
        )
        return
    print_table(
        ["score", "%", "95 % interval"],
        [
            [
                name,
                f"{score.value:.1%}"[:-1],
                f"{score.low:.1%} to {score.high:.1%}".replace("%", ""),
            ]
            for name, score in result.scores.items()
        ],
    )
    without = f", {result.without_match:,} without a match" if result.without_match else ""
    print_note(
        f"{result.queries:,} queries of {result.identities:,} people{without}; "
        f"{result.gallery:,} in the gallery; cameras: {cameras}"
    )
