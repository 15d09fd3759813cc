"""Readers of data sets by name, and the reader that fits a source.

A module of `ianet.datasets` that has a function `read` is a reader.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from ianet import datasets
from ianet.datasets.listing import Listing
from ianet.datasets.source import ARCHIVES, open_source

BOOLEANS = {"true": True, "false": False}


class UnknownLayoutError(ValueError):
    """The files of a source are in the layout of no reader, or of several."""


def readers() -> dict[str, ModuleType]:
    """Return the modules of `ianet.datasets` that are readers, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(datasets.__path__))
    modules = {name: importlib.import_module(f"ianet.datasets.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "read")}


def guess_reader(source: Path) -> str:
    """Return the name of the one reader whose layout fits a source.

    Raises:
        UnknownLayoutError: none or several.
        ValueError: the source is damaged.
        FileNotFoundError: no source.
    """
    is_archive = source.name.lower().endswith(ARCHIVES)
    if is_archive or source.is_dir() or not source.exists():
        paths = open_source(source, "a data set").paths()
    else:
        paths = [source.name]
    modules = readers()
    matches = [
        name for name, module in modules.items() if hasattr(module, "fits") and module.fits(paths)
    ]
    if len(matches) != 1:
        raise UnknownLayoutError(
            f"{source} is in the layout of {' and of '.join(matches) or 'no known data set'}: "
            f"name it with --reader, one of {', '.join(modules)}. The reader persons takes a "
            "folder for each person"
        )
    return matches[0]


def read_source(source: Path, reader: str | None, options: Mapping[str, str]) -> Listing:
    """Return the listing of a data set, with the options of its reader as text.

    Args:
        source: of the data set.
        reader: its name; None guesses the reader by the layout.
        options: of the reader, by name. The types of its keyword arguments say what they hold.

    Raises:
        ValueError: no such reader, a wrong option, or as the reader.
        FileNotFoundError: as the reader.
    """
    name = reader or guess_reader(source)
    modules = readers()
    if name not in modules:
        raise ValueError(f"there is no reader {name!r}: choose from {', '.join(modules)}")
    listing: Listing = modules[name].read(source, **_parse_options(name, modules[name], options))
    return listing


def _parse_options(name: str, module: ModuleType, options: Mapping[str, str]) -> dict[str, Any]:
    parameters = {
        option: parameter
        for option, parameter in signature(module.read).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    unknown = sorted(set(options) - set(parameters))
    if unknown:
        raise ValueError(
            f"reader {name} has no option {', '.join(unknown)}: choose from {', '.join(parameters)}"
        )
    missing = [
        option
        for option, parameter in parameters.items()
        if parameter.default is parameter.empty and option not in options
    ]
    if missing:
        raise ValueError(
            f"reader {name} needs {', '.join(missing)}, without a default: {module.__name__} lists "
            "the choices"
        )
    hints = get_type_hints(module.read)
    return {option: _parse(option, text, hints[option]) for option, text in options.items()}


def _parse(option: str, text: str, kind: Any) -> object:
    """Return the value of an option that a text stands for, by the option's type hint."""
    if kind is bool:
        if text.lower() not in BOOLEANS:
            raise ValueError(f"{option} is {text!r}: it must be true or false")
        return BOOLEANS[text.lower()]
    if Path in (kind, *get_args(kind)):  # Path or Path | None
        return Path(text)
    return text
