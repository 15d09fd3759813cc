"""Data sets of params.yaml, by the readers of `ianet/datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ianet.datasets.listing import Listing
from ianet.readers import readers
from pipeline.config.settings import PARAMS, Dataset, SettingsError, call, check_known, load


def read(reader: str, source: Path, options: Mapping[str, Any], where: str) -> Listing:
    """The listing of a reader.

    Args:
        reader: its name.
        source: path of the data set.
        options: of the reader, by name.
        where: they were given, for the messages.

    Raises:
        SettingsError: no such reader, or an option that is unknown, missing or of a wrong type.
        FileNotFoundError, ValueError: as the reader.
    """
    modules = readers()
    if reader not in modules:
        raise SettingsError(f"there is no reader {reader!r}: choose from {', '.join(modules)}")
    listing: Listing = call(modules[reader].read, source, options=options, where=where)
    return listing


def read_dataset(dataset: str) -> tuple[Dataset, Listing]:
    """The settings of a data set of params.yaml, and the listing of its reader.

    Raises:
        SettingsError: params.yaml lacks it, or as `read`.
        FileNotFoundError, ValueError: as the reader.
    """
    datasets = load().datasets
    check_known(dataset, datasets, "the command", f"datasets of {PARAMS}")
    settings = datasets[dataset]
    options = {**settings.options, "published": settings.published}
    where = f"{PARAMS}: datasets.{dataset}.options"
    return settings, read(settings.reader, settings.source, options, where)
