"""The features of pictures, for commands: with a progress bar, and the skipped pictures named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ianet.cli.shared import print_note, progress
from ianet.feature_files import FeatureFile, is_feature_file, refuse_mixed
from ianet.feature_table import FeatureTable, concatenate
from ianet.features import Precision
from ianet.model import Model
from ianet.pictures import Labels, Picture, find_pictures


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


def open_features(
    model: Model,
    source: Path,
    labels: Labels,
    embed: Callable[[list[Picture]], Iterator[FeatureTable]],
) -> FeatureTable | FeatureFile:
    """Return the features in a file, or of pictures.

    Args:
        model: whose features they must be.
        source: a file of features, or pictures, see `find_pictures`.
        labels: see `find_pictures`.
        embed: gives the features of pictures.

    Raises:
        FileNotFoundError, ValueError: as `FeatureFile`, `find_pictures` and `embed`; or the
            features are of another model.
    """
    if source.is_file() and is_feature_file(source):
        file = FeatureFile(source)
        refuse_mixed(model.identity, file.model, str(source))
        return file
    return concatenate(embed(find_pictures(source, labels)))
