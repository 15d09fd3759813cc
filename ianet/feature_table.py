"""Features of pictures, and how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ianet.options import Cameras, refuse_unknown

BLOCK = 4096  # pictures whose features are read or written at a time


class Identity(NamedTuple):
    """Which model: features of two models cannot be compared.

    Attributes:
        name: of the model, for people.
        digest: SHA-256 of the weights and of what else decides the features, in hexadecimal.
    """

    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name} sha256:{self.digest}"


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Features of pictures.

    Attributes:
        features: (N, D) float32.
        paths: of the N pictures.
        persons, cameras: of the N pictures, "" where unknown.
        model: that made the features.
        skipped: path to the reason, of the pictures that could not be decoded.
        flip: whether they are means with the features of the mirrored pictures. Features of both
            kinds cannot be compared.
    """

    features: NDArray[np.float32]
    paths: list[str]
    persons: list[str]
    cameras: list[str]
    model: Identity
    skipped: Mapping[str, str] = field(default_factory=dict)
    flip: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def labels(self) -> pd.DataFrame:
        """Return path, person and camera of each picture."""
        return pd.DataFrame(
            {"path": self.paths, "person": self.persons, "camera": self.cameras}, dtype="str"
        )

    def blocks(self) -> Iterator[FeatureTable]:
        """Yield the features of at most `BLOCK` pictures at a time."""
        for first in range(0, len(self), BLOCK):
            rows = slice(first, first + BLOCK)
            yield FeatureTable(
                self.features[rows],
                self.paths[rows],
                self.persons[rows],
                self.cameras[rows],
                self.model,
                flip=self.flip,
            )

    def select(self, paths: Iterable[str]) -> FeatureTable:
        """Return the pictures with these paths, in their order, without those that were skipped."""
        places = {path: row for row, path in enumerate(self.paths)}
        rows = [places[path] for path in paths if path not in self.skipped]
        return FeatureTable(
            self.features[rows],
            [self.paths[row] for row in rows],
            [self.persons[row] for row in rows],
            [self.cameras[row] for row in rows],
            self.model,
            self.skipped,
            self.flip,
        )


def concatenate(tables: Iterable[FeatureTable]) -> FeatureTable:
    """Return the pictures of all tables, which are of one model and one `flip`, in order."""
    parts = list(tables)
    return FeatureTable(
        np.concatenate([part.features for part in parts]),
        [path for part in parts for path in part.paths],
        [person for part in parts for person in part.persons],
        [camera for part in parts for camera in part.cameras],
        parts[0].model,
        {path: reason for part in parts for path, reason in part.skipped.items()},
        parts[0].flip,
    )


class Embedding(Protocol):
    """Features and how they were made: a `FeatureTable` or an `ianet.feature_files.FeatureFile`."""

    @property
    def model(self) -> Identity: ...
    @property
    def flip(self) -> bool: ...


def check_comparable(
    first: Embedding, second: Embedding, names: tuple[str, str] = ("query", "gallery")
) -> None:
    """Raise ValueError unless features are of one model and one `flip`."""
    if first.model.digest != second.model.digest:
        raise ValueError(
            f"{names[0]} has features of {first.model}, and {names[1]} of {second.model}: "
            "features of two models cannot be compared, so embed the pictures again"
        )
    if first.flip != second.flip:
        raise ValueError(
            f"{names[0]} and {names[1]} are features with and without flip: embed them alike"
        )


class Labelled(Protocol):
    """Pictures with their persons and cameras, "" where unknown; a `FeatureTable` is one."""

    @property
    def paths(self) -> list[str]: ...
    @property
    def persons(self) -> list[str]: ...
    @property
    def cameras(self) -> list[str]: ...


def check_labels(table: Labelled, cameras: Cameras) -> None:
    """Raise ValueError unless each picture has its person, and its camera where cameras count."""
    refuse_unknown("cameras", cameras, get_args(Cameras))
    _refuse_missing(table.paths, table.persons, "person", "name the persons")
    if cameras == "respect":
        remedy = "name the cameras, or ignore them (--cameras ignore)"
        _refuse_missing(table.paths, table.cameras, "camera", remedy)


def _refuse_missing(paths: Sequence[str], values: Sequence[str], name: str, remedy: str) -> None:
    """Raise ValueError if a label of a picture is "".

    Args:
        paths: of the pictures.
        values: of the label.
        name: of the label.
        remedy: what a user does about the error.
    """
    unknown = [path for path, value in zip(paths, values, strict=True) if not value]
    if unknown:
        raise ValueError(
            f"the {name} of {len(unknown):,} of {len(paths):,} pictures is unknown, the first of "
            f"them {unknown[0]}: {remedy}"
        )
