"""`ianet validate`: what is wrong with a data set."""

from __future__ import annotations

import typer

from ianet.cli.shared import (
    Cameras,
    Dataset,
    Json,
    Reader,
    ReaderOptions,
    parse_options,
    print_json,
    progress,
)


def validate(
    dataset: Dataset,
    reader: Reader = None,
    option: ReaderOptions = None,
    cameras: Cameras = "respect",
    json: Json = False,
) -> None:
    """Say what is wrong with a data set, before anything is trained or scored.

    The exit code is 1 if something is wrong.

    Examples:

    \b
      ianet validate data/Market-1501-v15.09.15.zip
      ianet validate cuhk-03.mat --option images=labeled --option protocol=classic
      ianet validate photos --reader persons --cameras ignore --json
    """
    from ianet.readers import guess_reader, read_source
    from ianet.validation import find_image_problems, find_table_problems, image_digests

    name = reader or guess_reader(dataset)
    listing = read_source(dataset, name, parse_options(option))
    digests = []
    with progress("looking at each image", listing.table.path.nunique()) as advance:
        for digest in image_digests(listing):
            digests.append(digest)
            advance(1)
    problems = [
        *find_table_problems(listing.table, cameras),
        *find_image_problems(listing, digests),
    ]
    if json:
        print_json({"reader": name, "counts": listing.counts, "problems": problems})
    else:
        counts = ", ".join(f"{number:,} {what}" for what, number in listing.counts.items())
        print(f"{dataset}, read by {name}: {counts}")
        for problem in problems:
            print(f"wrong: {problem}")
        if not problems:
            print("nothing is wrong")
    raise typer.Exit(1 if problems else 0)
