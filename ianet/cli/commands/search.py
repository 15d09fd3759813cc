"""`ianet search`: the nearest pictures of a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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

if TYPE_CHECKING:
    from pandas import DataFrame

TERMINAL_QUERIES = 10  # queries in the terminal


def search(
    model: ModelSource,
    query: Annotated[
        Path, typer.Argument(metavar="QUERY", help="Pictures, or a file of `ianet embed`.")
    ],
    gallery: Annotated[
        list[Path],
        typer.Argument(
            metavar="GALLERY", help="Pictures, or files of `ianet embed`, searched together."
        ),
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
    far: Annotated[
        float | None,
        typer.Option(
            help="False-accept rate of the search threshold; by default the first of the "
            "calibration."
        ),
    ] = None,
    labels: Labels = "names",
    batch: Batch = 64,
    device: Device = "auto",
    precision: Precision = "float32",
    flip: Flip = False,
    skip_bad: SkipBad = False,
    json: Json = False,
) -> None:
    """Find the nearest pictures of one or more galleries for each query.

    The search is exact. A gallery may be larger than memory: the features of pictures go to a
    temporary file, and those of a Parquet file are read in blocks. Other files are read whole. A
    picture with the path of the query is left out. Where `ianet calibrate --search-far` gave the
    model a threshold, "accepted" says which pictures are nearer. Pictures are embedded with --flip
    where the features in a file, or the threshold, are.

    Examples:

    \b
      ianet search MODEL query.jpg photos -k 5
      ianet search MODEL query gallery --labels folders --html ranks.html
      ianet search MODEL query gallery.parquet new.parquet -k 50 -o ranks.parquet
    """
    from contextlib import ExitStack
    from functools import partial

    from ianet.cli.embedding import choose_flip, embed, open_features, store
    from ianet.feature_table import concatenate
    from ianet.files import check_output
    from ianet.model import load
    from ianet.pictures import find_pictures
    from ianet.ranks_page import sort_queries
    from ianet.searching import JointGallery
    from ianet.searching import search as find

    if output is not None and output.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"{output} does not end in .csv or .parquet: name the file so")
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{html} does not end in .html: name the file so")
    for file in filter(None, (output, html)):
        check_output(file, [query, *gallery])
    loaded = load(model)
    calibration = loaded.description.calibration
    threshold = calibration.find_search_threshold(far) if calibration else None
    if far is not None and threshold is None:
        raise ValueError(
            f"{model} has no search threshold: find one with `ianet calibrate --search-far`, or "
            "leave --far out"
        )
    files = {source: open_features(loaded, source) for source in (query, *gallery)}
    flips = {str(source): file.flip for source, file in files.items() if file is not None}
    if calibration and threshold:
        flips[f"the search threshold of {model}"] = calibration.flip
    embed_pictures = partial(
        embed,
        loaded,
        batch=batch,
        device=device,
        precision=precision,
        flip=choose_flip(flip, flips),
        skip_bad=skip_bad,
    )
    query_file = files[query]
    query_features = concatenate(
        query_file.blocks() if query_file else embed_pictures(find_pictures(query, labels))
    )
    with ExitStack() as stack:
        parts = [
            files[source]
            or stack.enter_context(store(embed_pictures(find_pictures(source, labels))))
            for source in gallery
        ]
        advance = stack.enter_context(progress("searching", sum(map(len, parts))))
        ranks = find(query_features, JointGallery(parts), k, advance)
    count = len(set(query_features.paths) - set(ranks["query"]))
    if count:
        subject = "1 query has" if count == 1 else f"{count:,} queries have"
        print_note(f"{subject} no neighbour, as the gallery holds no other picture")
    if threshold:
        ranks["accepted"] = ranks["distance"].astype(float) < threshold.distance.value
    if output is not None:
        _write_ranks(ranks, output)
    if html is not None:
        _write_page(ranks, sort_queries(ranks, sort)[:queries], html)
    if json:
        print_json(ranks.astype(object).where(ranks.notna(), None).to_dict("records"))
        return
    _print_ranks(ranks, output)
    if threshold and calibration and calibration.search:
        print_note(
            f"accepted: nearer than {threshold.distance.value:.4f}, the threshold at a "
            f"false-accept rate of {threshold.far:g} in a gallery of {calibration.search.gallery:,}"
        )


def _write_ranks(ranks: DataFrame, output: Path) -> None:
    """Write all ranks as CSV or Parquet."""
    from ianet.escapes import to_csv
    from ianet.files import build_whole

    with build_whole(output) as temporary:
        if output.suffix.lower() == ".csv":
            temporary.write_bytes(to_csv(ranks).encode())
        else:
            ranks.to_parquet(temporary, index=False)


def _write_page(ranks: DataFrame, queries: list[str], html: Path) -> None:
    """Write a page with the pictures of queries and their neighbours."""
    from ianet.files import write_whole
    from ianet.pictures import open_picture
    from ianet.ranks_page import write_page

    with progress("drawing", len(queries)) as advance:
        parts = []
        for part in write_page(ranks, queries, open_picture, "Ranked lists"):
            parts.append(part)
            advance(1)
    write_whole(html, "".join(parts))


def _print_ranks(ranks: DataFrame, output: Path | None) -> None:
    """Print the ranks of the first queries.

    Args:
        ranks: of `ianet.searching.search`, with "accepted" where a threshold is known.
        output: the file that has all ranks.
    """
    from pandas import isna

    signs = {True: "✓", False: "✗"}
    accepted = ["accepted"] if "accepted" in ranks else []
    queries = ranks["query"].unique()
    print_table(
        ["query", "rank", "path", "distance", "person", "right", *accepted],
        [
            [
                row["query"] if row["rank"] == 1 else "",
                row["rank"],
                row["path"],
                f"{row['distance']:.4f}",
                row["person"],
                "" if isna(row["right"]) else signs[bool(row["right"])],
                *(signs[row[column]] for column in accepted),
            ]
            for row in ranks[ranks["query"].isin(queries[:TERMINAL_QUERIES])].to_dict("records")
        ],
    )
    if len(queries) > TERMINAL_QUERIES:
        print_note(
            f"{len(queries) - TERMINAL_QUERIES:,} more queries: -o FILE writes all of them"
            if output is None
            else f"{output} has all {len(queries):,} queries"
        )
