"""The model that MLflow serves: images to features.

MLflow copies this file beside `ianet` into the logged model and imports the copy as a module of its
own. So this module imports nothing of `pipeline`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ianet.features import extract
from ianet.network import load


class Features:
    """A trained network with the interface that MLflow calls."""

    def __init__(self, folder: Path) -> None:
        """`folder` holds the weights and the description of a run."""
        self.network = load(folder)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features, (N, D) float32.

        Args:
            images: (N, height, width, 3) uint8, with values from 0 to 255.

        Raises:
            ValueError: images of another type or shape.
        """
        pixels = np.asarray(images)
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ValueError(
                f"images are {pixels.dtype} of shape {pixels.shape}: give uint8 from 0 to 255 of "
                "shape (N, height, width, 3)"
            )
        packed = torch.from_numpy(np.ascontiguousarray(pixels))
        return extract(self.network, packed, device=torch.device("cpu")).numpy()


def _load_pyfunc(folder: str) -> Features:
    """The model of a folder; MLflow calls the function by this name."""
    return Features(Path(folder))
