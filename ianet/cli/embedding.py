"""The features of pictures, for commands: with a progress bar, and the skipped pictures named."""

from __future__ import annotations

from collections.abc import Iterator

from ianet.cli.shared import print_note, progress
from ianet.feature_table import FeatureTable
from ianet.features import Precision
from ianet.model import Model
from ianet.pictures import Picture


def embed(
    model: Model,
    pictures: list[Picture],
    *,
    batch: int,
    device: str,
    precision: Precision,
    flip: bool,
    skip_bad: bool,
) -> Iterator[FeatureTable]:
    """Yield the features of each batch; see `Model.embed`.

    Raises:
        ValueError: as `Model.embed`, or not one picture can be decoded.
    """
    skipped: dict[str, str] = {}
    with progress("embedding", len(pictures)) as advance:
        for table in model.embed_batches(
            pictures,
            batch=batch,
            device=device,
            precision=precision,
            flip=flip,
            skip_bad=skip_bad,
        ):
            skipped |= table.skipped
            advance(len(table) + len(table.skipped))
            yield table
    for path, reason in skipped.items():
        print_note(f"skipped: {path} ({reason})")
    if len(skipped) == len(pictures):
        raise ValueError(f"not one of {len(pictures)} pictures can be decoded")
