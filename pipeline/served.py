"""The model that MLflow serves: images in, features out. It is copied beside `ianet` into the
logged model, where `mlflow.pyfunc.load_model` imports it as a module of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ianet.features import extract
from ianet.network import load


class Features:
    """`predict` takes (N, height, width, 3) uint8 images and gives (N, D) float32 features."""

    def __init__(self, folder: Path) -> None:
        self.network = load(folder)

    def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        packed = torch.from_numpy(np.ascontiguousarray(images))
        return extract(self.network, packed, device=torch.device("cpu")).numpy()


def _load_pyfunc(folder: str) -> Features:
    """The name by which MLflow calls it."""
    return Features(Path(folder))
