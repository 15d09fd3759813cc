"""`ianet search`: the nearest pictures of a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ianet.cli.shared import (
    Batch,
    Device,
    Flip,
    Json,
    Labels,
    ModelSource,
    Precision,
    SkipBad,
    print_json,
    print_note,
    print_table,
    progress,
)

SHOWN = 10  # queries in the terminal


def search(
    model: ModelSource,
    query: Annotated[
        Path, typer.Argument(metavar="QUERY", help="Pictures, or a file of `ianet embed`.")
    ],
    gallery: Annotated[
        Path, typer.Argument(metavar="GALLERY", help="Pictures, or a file of `ianet embed`.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours of each query.")] = 10,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File of all ranks: .csv or .parquet.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="File of a page with the pictures: .html.")
    ] = None,
    sort: Annotated[
        Literal["worst", "best", "given"],
        typer.Option(help="Which queries come first on the page."),
    ] = "worst",
    queries: Annotated[int, typer.Option(min=1, help="Queries on the page, at most.")] = 100,
    labels: Labels = "names",
    batch: Batch = 64,
    device: Device = "auto",
    precision: Precision = "float32",
    flip: Flip = False,
    skip_bad: SkipBad = False,
    json: Json = False,
) -> None:
    """Find the nearest pictures of a gallery for each query.

    The search is exact. The features of a gallery in a Parquet file are read in blocks, so the file
    may be larger than memory. A picture with the path of the query is left out.

    Examples:

    \b
      ianet search MODEL query.jpg photos -k 5
      ianet search MODEL query gallery --labels folders --html ranks.html
      ianet search MODEL query gallery.parquet -k 50 -o ranks.parquet
    """
    from functools import partial

    from pandas import isna

    from ianet.cli.embedding import embed, open_features
    from ianet.feature_table import concatenate
    from ianet.files import whole, write_whole
    from ianet.model import load
    from ianet.pictures import open_picture
    from ianet.ranks_page import sort_queries, write_page
    from ianet.searching import search as find

    if output is not None and output.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"{output} does not end in .csv or .parquet: name the file so")
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{html} does not end in .html: name the file so")
    loaded = load(model)
    embed_pictures = partial(
        embed,
        loaded,
        batch=batch,
        device=device,
        precision=precision,
        flip=flip,
        skip_bad=skip_bad,
    )
    wanted = concatenate(open_features(loaded, query, labels, embed_pictures).blocks())
    searched = open_features(loaded, gallery, labels, embed_pictures)
    with progress("searching", len(searched)) as advance:
        ranks = find(wanted, searched, k, advance)
    if output is not None:
        with whole(output) as temporary:
            if output.suffix.lower() == ".csv":
                ranks.to_csv(temporary, index=False)
            else:
                ranks.to_parquet(temporary, index=False)
    if html is not None:
        shown = sort_queries(ranks, sort)[:queries]
        with progress("drawing", len(shown)) as advance:
            parts = []
            for part in write_page(ranks, shown, open_picture, "Ranked lists"):
                parts.append(part)
                advance(1)
        write_whole(html, "".join(parts))
    if json:
        print_json(ranks.astype(object).where(ranks.notna(), None).to_dict("records"))
        return
    first = ranks[ranks["query"].isin(ranks["query"].unique()[:SHOWN])]
    print_table(
        ["query", "rank", "path", "distance", "person", "right"],
        [
            [
                row["query"] if row["rank"] == 1 else "",
                row["rank"],
                row["path"],
                f"{row['distance']:.4f}",
                row["person"],
                "" if isna(row["right"]) else "✓" if row["right"] else "✗",
            ]
            for row in first.to_dict("records")
        ],
    )
    more = ranks["query"].nunique() - SHOWN
    if more > 0:
        print_note(f"{more:,} more queries: -o FILE writes all of them")
