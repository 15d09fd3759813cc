"""The options that distinguish one network from another, and how their scores are computed.

This module imports neither torch nor NumPy, so that plans and settings can check a network without
the seconds that torch takes to be imported.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
PROJECTS = ("torchreid", "fastreid", "strong_baseline")
"""Projects whose ResNets differ in a detail from ours; their weights ask for the same detail."""
BACKBONES = (
    *(*RESNETS, "mobilenet_v2", "googlenet"),
    *(f"{name}_{project}" for project in PROJECTS for name in RESNETS),
)
STAGES = ("stage1", "stage2", "stage3", "stage4")
Position = Literal["stage", "block"]
Embeddings = Literal["pooled", "neck"]
Cameras = Literal["respect", "ignore"]
"""Whether a match is from another camera than the query, or from any camera."""
Scoring = Literal["ranking", "single_shot"]
"""The protocols of `ianet.protocols`."""


TYPE_NAMES: Mapping[Any, str] = {
    float: "a finite number",
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    NoneType: "null",
}
"""What a message calls the types of options."""


read_types: Callable[[type], dict[str, Any]] = cache(get_type_hints)
"""The annotations of a class. Reading them takes longer than comparing values with them."""


def refuse_unknown(option: str, value: str, choices: Collection[str]) -> None:
    """Raise ValueError unless an option has one of its values."""
    if value not in choices:
        raise ValueError(f"{option} is {value!r}: choose one of {', '.join(choices)}")


def check_types(options: object) -> None:
    """Compare the values of a frozen dataclass with its annotations.

    A whole number may stand for a number, and a list for a tuple. A list becomes a tuple.

    Raises:
        ValueError: one line with the option, its value and what is expected.
    """
    for name, annotation in read_types(type(options)).items():
        value = getattr(options, name)
        if not _has_type(value, annotation):
            text = " ".join(repr(value).split())  # the text of an array has several lines
            raise ValueError(f"{name} is {text}: {_describe(annotation)}")
        if isinstance(value, list):
            object.__setattr__(options, name, tuple(value))


def _has_type(value: object, annotation: Any) -> bool:
    """Return whether a value is of an annotation, out of those that options have."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin is UnionType:
        return any(_has_type(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple | list) and all(
            _has_type(item, arguments[0]) for item in value
        )
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _has_type(key, arguments[0]) and _has_type(item, arguments[1])
            for key, item in value.items()
        )
    if annotation in (int, float) and isinstance(value, bool):
        return False
    if annotation is float:
        if isinstance(value, Integral):
            return abs(int(value)) <= sys.float_info.max
        return isinstance(value, Real) and math.isfinite(value)
    return annotation is Any or isinstance(value, Integral if annotation is int else annotation)


def _describe(annotation: Any) -> str:
    """Return what a value must be, for a message."""
    if get_origin(annotation) is Literal:
        return f"choose one of {', '.join(get_args(annotation))}"
    return f"it must be {_name(annotation)}"


def _name(annotation: Any) -> str:
    """Return the name of a type in a message."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return " or ".join(map(_name, arguments))
    if origin is tuple:
        return f"a list, of which each item is {_name(arguments[0])}"
    if origin is Mapping:
        return "a mapping" if arguments[1] is Any else f"a mapping to {_name(arguments[1])}"
    return TYPE_NAMES.get(annotation) or f"a {annotation.__name__}"


@dataclass(frozen=True)
class NetworkOptions:
    """What distinguishes one network from another.

    A block's own options are checked when the network is built.

    Attributes:
        backbone: one of `BACKBONES`.
        weights: initial weights of the backbone, see `ianet.backbones.build`.
        block: file of `ianet/blocks` whose `Block` is inserted.
        after: stage name to options of the block there; a stage without an entry has no block.
        options: options of the block in every stage.
        position: "stage" puts a block after the last residual block of a stage, "block" after
            every residual block of the stage (Table 4f).
        neck: BatchNorm between pooling and classifier; the feature is then taken after the neck.
        embeddings: what losses on distances compare: "pooled", before the neck, or "neck", after
            the neck, as in the authors' released code.
        bias: of the neck and the classifier. Luo et al., Bag of Tricks (CVPRW 2019, Section 3.5),
            leave out both. Hyperplanes through the origin then separate the classes. The cosine
            compares features by their angle at the same origin.

    Raises:
        ValueError: a value of a wrong type, or an unknown backbone, block, stage or position.
    """

    backbone: str = "resnet50"
    weights: str = "none"
    block: str = "ia"
    after: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    position: Position = "stage"
    neck: bool = False
    embeddings: Embeddings = "pooled"
    bias: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        unknown = set(self.after) - set(STAGES)
        if unknown:
            raise ValueError(
                f"after names {', '.join(sorted(unknown))}: the stages are {', '.join(STAGES)}"
            )
        refuse_unknown("backbone", self.backbone, BACKBONES)
        # The specification of a module is found without importing the module, hence without torch.
        name = self.block
        is_module = name.isidentifier() and not name.startswith("_")
        if not is_module or importlib.util.find_spec(f"ianet.blocks.{name}") is None:
            raise ValueError(f"block is {name!r}: there is no file ianet/blocks/{name}.py")
