"""The options that distinguish one network from another.

This module imports neither torch nor NumPy, so that plans and settings can check a network without
the seconds that torch takes to be imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "googlenet")
STAGES = ("stage1", "stage2", "stage3", "stage4")
Position = Literal["stage", "block"]


def refuse_unknown(option: str, value: str, choices: Collection[str]) -> None:
    """Raise ValueError unless an option has one of its values."""
    if value not in choices:
        raise ValueError(f"{option} is {value!r}: choose one of {', '.join(choices)}")


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
        bias: of the neck and the classifier. Luo et al., Bag of Tricks (CVPRW 2019, Section 3.5),
            leave out both. Hyperplanes through the origin then separate the classes. The cosine
            compares features by their angle at the same origin.

    Raises:
        ValueError: an unknown backbone, block, stage or position.
    """

    backbone: str = "resnet50"
    weights: str = "none"
    block: str = "ia"
    after: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    position: Position = "stage"
    neck: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        refuse_unknown("position", self.position, get_args(Position))
        unknown = set(self.after) - set(STAGES)
        if unknown:
            raise ValueError(
                f"after names {', '.join(sorted(unknown))}: the stages are {', '.join(STAGES)}"
            )
        refuse_unknown("backbone", self.backbone, BACKBONES)
        # The specification of a module is found without importing the module, hence without torch.
        name = self.block
        if not name.isidentifier() or importlib.util.find_spec(f"ianet.blocks.{name}") is None:
            raise ValueError(f"block is {name!r}: there is no file ianet/blocks/{name}.py")
