"""The model that MLflow serves: images in, features out. MLflow runs this file by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import torch

from ianet.features import extract
from ianet.network import load


class Features(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    """`predict` takes (N, height, width, 3) uint8 images and gives (N, D) float32 features."""

    def load_context(self, context: Any) -> None:
        self.network = load(Path(context.artifacts["run"]))

    # Without type hints, by which MLflow would check and convert what it is given.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        images = torch.from_numpy(np.ascontiguousarray(model_input))
        return extract(self.network, images, device=torch.device("cpu")).numpy()


mlflow.models.set_model(Features())
