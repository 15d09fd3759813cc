"""A misspelt name of an option of a public function is refused; nothing else is done instead.

No variable, parameter or function of the code has a participle or a pronoun of a closed list as its
name: docs/CONTRIBUTING.md has the rule.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
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
ROOT = Path(__file__).parents[1]
WORDS = {
    *("found", "made", "told", "shown", "laid", "described", "drawn"),
    *("known", "chosen", "own", "given", "wanted", "built"),
}
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


def find_names(tree: ast.AST) -> Iterator[str]:
    """The names of variables, attributes, parameters, functions and classes that code binds."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case (
                ast.arg(arg=name) | ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name))
            ):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name) | ast.MatchAs(name=str(name)):
                yield name
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name


@pytest.mark.parametrize("folder", ["ianet", "pipeline", "benchmarks"])
def test_no_name_is_a_participle_or_a_pronoun(folder: str) -> None:
    names = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / folder).rglob("*.py")
        for name in find_names(ast.parse(path.read_text()))
        if name.strip("_").lower() in WORDS
    }
    assert names == set()


@pytest.mark.parametrize(
    "code",
    [
        "found = 1",
        "OWN: int",
        "self.shown = 1",
        "for made in []: pass",
        "[1 for _known in []]",
        "def told(): pass",
        "async def told(): pass",
        "def f(*, given): pass",
        "lambda *chosen: 1",
        "with f() as (drawn, _): pass",
        "import a as built",
        "class Described: pass",
        "try: pass\nexcept E as wanted: pass",
        "(laid := 1)",
        "match 1:\n case {'a': found}: pass",
        "match 1:\n case [*found]: pass",
        "match 1:\n case {**found}: pass",
    ],
)
def test_each_way_to_bind_a_name_counts(code: str) -> None:
    assert {name.strip("_").lower() for name in find_names(ast.parse(code))} & WORDS
