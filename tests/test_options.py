"""The types of options, which recipes and networks share."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest

from ianet.options import NetworkOptions, check_types
from ianet.training.recipe import Recipe

RECIPE: dict[str, Any] = {
    "height": 16, "width": 8, "epochs": 3, "batch": 6, "lr": 1e-2, "weight_decay": 5e-4,
}  # fmt: skip
NUMBER, WHOLE = "it must be a finite number", "it must be a whole number"


@dataclass(frozen=True)
class Options:
    number: float = 1.5
    whole: int = 2
    text: str = "a"
    flag: bool = True
    choice: Literal["left", "right"] = "left"
    optional: float | None = None
    numbers: tuple[float, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    nested: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_types(self)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", 1),
        ("number", np.float32(0.5)),
        ("whole", np.int64(3)),
        ("optional", 2),
        ("optional", None),
        ("choice", "right"),
        ("numbers", (1, 2.5)),
        ("options", {"sigma": (1, 2), "other": None}),
        ("nested", {"stage2": {}, "stage3": {"sigma": 1}}),
    ],
)
def test_values_of_the_right_type_stay_what_they_are(name: str, value: Any) -> None:
    assert getattr(Options(**{name: value}), name) is value


def test_a_list_becomes_a_tuple() -> None:
    assert Options(numbers=[1, 2.5]) == Options(numbers=(1, 2.5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("number", "fast", f"number is 'fast': {NUMBER}"),
        ("number", True, f"number is True: {NUMBER}"),
        ("number", None, f"number is None: {NUMBER}"),
        ("number", math.nan, f"number is nan: {NUMBER}"),
        ("number", -math.inf, f"number is -inf: {NUMBER}"),
        ("number", 10**400, f"number is {10**400}: {NUMBER}"),
        ("number", 1j, f"number is 1j: {NUMBER}"),
        ("number", np.eye(2), f"number is array([[1., 0.], [0., 1.]]): {NUMBER}"),
        ("whole", 2.5, f"whole is 2.5: {WHOLE}"),
        ("whole", 2.0, f"whole is 2.0: {WHOLE}"),
        ("whole", False, f"whole is False: {WHOLE}"),
        ("text", 3, "text is 3: it must be a text"),
        ("flag", 1, "flag is 1: it must be true or false"),
        ("choice", "up", "choice is 'up': choose one of left, right"),
        ("choice", ["left"], "choice is ['left']: choose one of left, right"),
        ("optional", "a\nb", r"optional is 'a\nb': it must be a finite number or null"),
        ("numbers", ["a"], "numbers is ['a']: it must be a list, of which each item is a finite"),
        ("numbers", 3, "numbers is 3: it must be a list, of which each item is a finite number"),
        ("options", ["a"], "options is ['a']: it must be a mapping"),
        ("options", {1: 2}, "options is {1: 2}: it must be a mapping"),
        ("nested", {"a": None}, "nested is {'a': None}: it must be a mapping to a mapping"),
    ],
)
def test_a_value_of_a_wrong_type_is_one_line(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is ") as info:
        Options(**{name: value})
    assert str(info.value).startswith(expected)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": "cosin"}, "schedule is 'cosin': choose one of step, cosine"),
        ({"lr": "fast"}, f"lr is 'fast': {NUMBER}"),
        ({"lr": math.nan}, f"lr is nan: {NUMBER}"),
        ({"block_lr": "x"}, f"block_lr is 'x': {NUMBER} or null"),
        ({"epochs": 2.5}, f"epochs is 2.5: {WHOLE}"),
        ({"flip": None}, f"flip is None: {NUMBER}"),
        (
            {"milestones": ["a"]},
            "milestones is ['a']: it must be a list, of which each item is a whole number",
        ),
    ],
)
def test_types_of_a_recipe(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^\w+ is ") as info:
        Recipe(**{**RECIPE, **changes})
    assert str(info.value) == message


def test_milestones_of_a_file_are_those_of_python() -> None:
    assert Recipe(**RECIPE, milestones=[1, 2]) == Recipe(**RECIPE, milestones=(1, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"neck": "perhaps"}, "neck is 'perhaps': it must be true or false"),
        ({"position": "before"}, "position is 'before': choose one of stage, block"),
        ({"backbone": 50}, "backbone is 50: it must be a text"),
        ({"after": {"stage2": 3}}, "after is {'stage2': 3}: it must be a mapping to a mapping"),
        ({"options": None}, "options is None: it must be a mapping"),
    ],
)
def test_types_of_a_network(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"^\w+ is ") as info:
        NetworkOptions(**changes)
    assert str(info.value) == message


def test_options_need_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from ianet.options import NetworkOptions; "
        "from ianet.training.recipe import Recipe; NetworkOptions(); "
        f"Recipe(**{RECIPE!r}); print({{'torch', 'numpy'}} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "set()\n"
