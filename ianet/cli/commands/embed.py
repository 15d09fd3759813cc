"""`ianet embed`: the features of pictures as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    format_count,
    print_json,
)

if TYPE_CHECKING:
    from ianet.feature_table import FeatureTable


def embed(
    model: ModelSource,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES",
            help="Pictures, folders, archives (zip, tar), or lists of paths (txt, csv).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File: .parquet, .npz or .csv.")],
    labels: Labels = "names",
    batch: Batch = 64,
    device: Device = "auto",
    precision: Precision = "float32",
    flip: Flip = False,
    skip_bad: SkipBad = False,
    json: Json = False,
) -> None:
    """Write the features of pictures to a file.

    The file names each picture, with its person and camera where known, and the model.

    Examples:

    \b
      ianet embed MODEL photos -o photos.parquet
      ianet embed MODEL photos.zip more/anna.jpg --skip-bad -o photos.npz
      ianet embed MODEL people --labels folders --flip -o people.csv
    """
    from ianet.cli.embedding import embed as embed_pictures
    from ianet.feature_files import check_suffix, write_features
    from ianet.files import check_output
    from ianet.model import load
    from ianet.pictures import find_pictures

    check_suffix(output)
    check_output(output, images)
    loaded = load(model)
    pictures = find_pictures(images, labels)
    tables = embed_pictures(
        loaded,
        pictures,
        batch=batch,
        device=device,
        precision=precision,
        flip=flip,
        skip_bad=skip_bad,
    )
    skipped: dict[str, str] = {}

    def note_skipped() -> Iterator[FeatureTable]:
        for table in tables:
            skipped.update(table.skipped)
            yield table

    written = write_features(output, note_skipped())
    if json:
        print_json(
            {
                "output": str(output),
                "model": loaded.identity._asdict(),
                "size": loaded.description.features.size,
                "flip": flip,
                "pictures": written,
                "skipped": skipped,
            }
        )
    else:
        size = loaded.description.features.size
        print(f"{output}: {size} numbers for each of {format_count(written, 'picture')}")
