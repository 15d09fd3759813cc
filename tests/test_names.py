"""A misspelt name of an option of a public function is refused; nothing else is done instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ianet.calibration import check_limits
from ianet.evaluation import evaluate
from ianet.export import export
from ianet.feature_table import FeatureTable, Identity
from ianet.features import extract_batches
from ianet.losses import batch_hard_triplet
from ianet.pictures import find_pictures
from ianet.protocols import score_queries
from ianet.ranks_page import sort_queries
from ianet.validation import find_table_problems
from pipeline.data.cameras import number_cameras

TABLE = FeatureTable(
    np.eye(2, dtype=np.float32), ["a", "b"], ["1", "1"], ["1", "2"], Identity("tiny", "0")
)
ARGUMENTS = {
    **dict.fromkeys(("query_features", "gallery_features"), np.eye(2)),
    **dict.fromkeys(("query_ids", "gallery_ids"), np.array([1, 1])),
    **dict.fromkeys(("query_cameras", "gallery_cameras"), np.array([1, 2])),
}
IMAGES = pd.DataFrame({"path": ["a", "b"], "camera": ["1", "2"]})
DEVICE = torch.device("cpu")
MODEL: Any = None  # not used before a name is refused


@pytest.mark.parametrize(
    ("function", "name", "value"),
    [
        (lambda **name: evaluate(TABLE, TABLE, **name), "cameras", "Respect"),
        (lambda **name: evaluate(TABLE, TABLE, **name), "pool", "Mean"),
        (lambda **name: evaluate(TABLE, TABLE, **name), "scoring", "single-shot"),
        (lambda **name: score_queries(**name, **ARGUMENTS), "scoring", "rank"),
        (lambda **name: score_queries("ranking", **name, **ARGUMENTS), "distance", "cosin"),
        (lambda **name: check_limits(TABLE, TABLE, fars=[], search_fars=[], **name), "cameras", ""),
        (lambda **name: list(find_table_problems(IMAGES, **name)), "cameras", "Ignore"),
        (lambda **name: number_cameras(IMAGES, **name), "cameras", "both"),
        (lambda **name: find_pictures([np.zeros((2, 2, 3), np.uint8)], **name), "labels", "folder"),
        (
            lambda **name: list(extract_batches(torch.nn.Identity(), [], device=DEVICE, **name)),
            "precision",
            "bf16",
        ),
        (
            lambda **name: batch_hard_triplet(torch.eye(2), torch.arange(2), 0.3, **name),
            "distance",
            "cosin",
        ),
        (lambda **name: sort_queries(pd.DataFrame(), **name), "sort", "wurst"),
        (lambda **name: export(MODEL, Path("model.onx"), **name), "form", "onx"),
    ],
)
def test_a_name_that_is_unknown_is_refused(
    function: Callable[..., Any], name: str, value: str
) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is '{value}': choose one of "):
        function(**{name: value})
