"""Features of pictures, and of which model they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


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
    """

    features: NDArray[np.float32]
    paths: list[str]
    persons: list[str]
    cameras: list[str]
    model: Identity
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)


def concatenate(tables: Iterable[FeatureTable]) -> FeatureTable:
    """Return the pictures of all tables, which are of one model, in order."""
    parts = list(tables)
    return FeatureTable(
        np.concatenate([part.features for part in parts]),
        [path for part in parts for path in part.paths],
        [person for part in parts for person in part.persons],
        [camera for part in parts for camera in part.cameras],
        parts[0].model,
        {path: reason for part in parts for path, reason in part.skipped.items()},
    )
