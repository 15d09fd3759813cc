"""Readers by name, and the reader that fits a source. A file in `ianet/datasets` is a reader."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ianet import datasets
from ianet.datasets.listing import Listing
from ianet.datasets.source import ARCHIVES, open_source
from pipeline.config.settings import PARAMS, Dataset, SettingsError, call, check_known, load


def readers() -> dict[str, ModuleType]:
    """The modules of `ianet.datasets` that are readers, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(datasets.__path__))
    modules = {name: importlib.import_module(f"ianet.datasets.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "read")}


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
    known = readers()
    if reader not in known:
        raise SettingsError(f"there is no reader {reader!r}: choose from {', '.join(known)}")
    listing: Listing = call(known[reader].read, source, options=options, where=where)
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


def guess_reader(source: Path) -> str:
    """The name of the one reader whose layout fits a source.

    Raises:
        SettingsError: none or several.
        FileNotFoundError, ValueError: no source, or it is damaged.
    """
    is_archive = source.name.lower().endswith(ARCHIVES)
    if is_archive or source.is_dir() or not source.exists():
        paths = open_source(source, "a data set").paths()
    else:
        paths = [source.name]
    known = readers()
    fitting = [
        name for name, module in known.items() if hasattr(module, "fits") and module.fits(paths)
    ]
    if len(fitting) != 1:
        raise SettingsError(
            f"{source} is in the layout of {' and of '.join(fitting) or 'no known data set'}: "
            f"name it with --reader, one of {', '.join(known)}"
        )
    return fitting[0]
