"""The model that MLflow serves: photos to features.

MLflow copies this file beside `ianet` into the logged model and imports the copy as a module of its
own. So this module imports nothing of `pipeline`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ianet.model import load

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "image"


class Features:
    """A model with the interface that MLflow calls; a GPU computes where there is one."""

    def __init__(self, folder: str) -> None:
        """`folder` holds the model, see `ianet.model`."""
        self.model = load(folder)

    def predict(self, table: pd.DataFrame, params: Any = None) -> NDArray[np.float32]:
        """Features, (N, D) float32, as `ianet.model.Model.embed` gives.

        Args:
            table: N rows with one column, image: the bytes of a JPEG, a PNG or another picture.
            params: not used.

        Raises:
            ValueError: another table, or a picture that cannot be decoded; one line.
        """
        if list(table) != [COLUMN]:
            raise ValueError(f"columns are {', '.join(map(str, table))}: give one column, {COLUMN}")
        photos = table[COLUMN].tolist()
        for row, photo in enumerate(photos):
            if not isinstance(photo, bytes):
                raise ValueError(
                    f"row {row} of {COLUMN} is of type {type(photo).__name__}: give the bytes of "
                    "a picture's file"
                )
        return self.model.embed(photos).features


def _load_pyfunc(folder: str) -> Features:
    """The model of a folder; MLflow calls the function by this name."""
    return Features(folder)
