"""The features of pictures, for commands: with a progress bar, and the skipped pictures named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ianet.cli.shared import print_note, progress
from ianet.feature_files import FeatureFile, is_feature_file, refuse_mixed, write_features
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
        ValueError: as `Model.embed`, not one picture can be decoded, or a GPU without memory for
            the batch.
    """
    skipped: dict[str, str] = {}
    tables = model.embed_batches(
        pictures,
        batch=batch,
        device=device,
        precision=precision,
        flip=flip,
        skip_bad=skip_bad,
    )
    with progress("embedding", len(pictures)) as advance:
        try:
            for table in tables:
                skipped |= table.skipped
                advance(len(table) + len(table.skipped))
                yield table
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"the GPU has no memory for {batch} pictures at a time: lower --batch"
            ) from error
    for path, reason in skipped.items():
        print_note(f"skipped: {path} ({reason})")
    if len(skipped) == len(pictures):
        raise ValueError(f"not one of {len(pictures)} pictures can be decoded")


@contextmanager
def store(tables: Iterable[FeatureTable]) -> Iterator[FeatureFile]:
    """Yield features as a temporary file, as those of a gallery may be larger than memory.

    Args:
        tables: as for `ianet.feature_files.write_features`.

    Raises:
        OSError: the disk of `tempfile` is full.
    """
    with TemporaryDirectory(prefix="ianet-") as folder:
        path = Path(folder, "features.parquet")
        write_features(path, tables)
        yield FeatureFile(path)


def open_features(model: Model, source: Path) -> FeatureFile | None:
    """Return the features in a file, or None if a source is no file of features.

    Args:
        model: whose features they must be.
        source: a file of features, or pictures.

    Raises:
        FileNotFoundError: the name is that of a file of features, and there is none.
        ValueError: as `FeatureFile`, or the features are of another model.
    """
    # A CSV file may list pictures.
    is_absent = not source.exists() and source.suffix.lower() != ".csv"
    if not (source.is_file() or is_absent) or not is_feature_file(source):
        return None
    file = FeatureFile(source)
    refuse_mixed(model.identity, file.model, str(source))
    return file


def choose_flip(flip: bool, flips: Mapping[str, bool]) -> bool:
    """Return whether to average with the features of mirrored pictures.

    Args:
        flip: whether the command is to.
        flips: whether features that meet those of the command have been, by what they belong to.

    Raises:
        ValueError: features with and without would meet; one line.
    """
    kinds = {**flips, "this command": True} if flip else dict(flips)
    names = {kind: name for name, kind in kinds.items()}
    if len(names) > 1:
        raise ValueError(
            f"{names[True]} has features with --flip, and {names[False]} has features without: the "
            "two cannot be compared, so take --flip for all pictures or for none"
        )
    return True in names
