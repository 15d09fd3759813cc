"""IANet: a backbone, blocks after chosen stages, and a head (Section 3.4, Fig. 6).

A network is described by `NetworkOptions`, a frozen value that a YAML file can hold, and is
built from it and the number of training identities alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ianet import backbones


@dataclass(frozen=True)
class NetworkOptions:
    """What distinguishes one network from another.

    Attributes:
        backbone: one of `backbones.NAMES`.
        weights: initial weights of the backbone, see `backbones.build`.
        block: file of `ianet/blocks` whose `Block` is inserted.
        after: stage name to options of the block there; a stage that is not named has none.
        options: options of the block in every stage.
        position: "stage" puts one block after the last residual block of a stage,
            "block" one after every residual block of it (Table 4f).
        neck: BatchNorm between pooling and classifier; the feature is then taken after it.
        bias: of the neck and the classifier. Luo et al., Bag of Tricks (CVPRW 2019, Section 3.5),
            leave out both: classes are then parted by hyperplanes through the origin, and the
            cosine, by which features are compared, is an angle at that origin too.
    """

    backbone: str = "resnet50"
    weights: str = "none"
    block: str = "ia"
    after: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    position: Literal["stage", "block"] = "stage"
    neck: bool = False
    bias: bool = True


class Network(nn.Module):
    """A person re-identification network.

    `forward` takes normalised images, (B, 3, height, width) of any size. In evaluation mode it
    returns the features (B, `feature_size`), to be compared by the cosine; in training mode the
    logits (B, identities) and the embeddings (B, `feature_size`), which are what pooling gives,
    before the neck: there a loss on distances does not pull against the one on angles (Bag of
    Tricks, Section 3.5).

    The backbone has the same state-dict keys with and without blocks, so that blocks can be
    inserted into any trained network.

    Raises:
        ValueError: an unknown backbone, block, stage, position or option of a block.
        FileNotFoundError, ConnectionError: see `backbones.build`.
    """

    def __init__(self, identities: int, options: NetworkOptions) -> None:
        super().__init__()
        self.identities = identities
        self.options = options
        if options.position not in ("stage", "block"):
            raise ValueError(f"position is {options.position!r}: choose one of stage, block")
        unknown = set(options.after) - set(backbones.STAGES)
        if unknown:
            raise ValueError(
                f"after names {', '.join(sorted(unknown))}: the stages are "
                f"{', '.join(backbones.STAGES)}"
            )
        backbone = backbones.build(options.backbone, options.weights)
        self.stem = backbone.stem
        self.stages = nn.ModuleDict(
            {stage: nn.ModuleList(blocks) for stage, blocks in backbone.stages.items()}
        )
        # Stage, then the index of the residual block after which a block stands.
        blocks: dict[str, nn.ModuleDict] = {}
        for stage, own in options.after.items():
            last = len(backbone.stages[stage]) - 1
            places = range(last + 1) if options.position == "block" else [last]
            blocks[stage] = nn.ModuleDict(
                {
                    str(place): _block(
                        options.block,
                        backbone.channels[stage][place],
                        {**options.options, **own},
                    )
                    for place in places
                }
            )
        self.blocks = nn.ModuleDict(blocks)
        self.feature_size = backbone.channels[backbones.STAGES[-1]][-1]
        self.neck = nn.BatchNorm1d(self.feature_size) if options.neck else nn.Identity()
        if options.neck and not options.bias:
            self.neck.register_parameter("bias", None)
        self.classifier = nn.Linear(self.feature_size, identities, bias=options.bias)

    def compile_blocks(self) -> None:
        """Have torch compile the inserted blocks when they are first called, where there is a GPU
        and a C compiler: once for each size of batch, of which an epoch has two at most. A block
        is dozens of short operations on large maps, which become few; residual blocks gain less
        than it takes to compile them.
        """
        # Triton's own search; without one it would fail.
        compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
        if torch.cuda.is_available() and compiler:
            for blocks in self.blocks.children():
                for block in blocks.children():
                    block.compile(dynamic=False)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        for _, features in self.intermediates(images):  # noqa: B007 - the last one is wanted
            pass
        embeddings = features.mean(dim=(2, 3))
        necked = self.neck(embeddings)
        return (self.classifier(necked), embeddings) if self.training else necked

    def intermediates(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every feature map on the way, (B, C, H, W), under the name of the module that gave it.

        In their order: "stem", then "stages.stage1.0" for a residual block and, after it,
        "blocks.stage1.0" for the block inserted there.
        """
        features = self.stem(images)
        yield "stem", features
        for stage, residual_blocks in self.stages.items():
            inserted = dict(self.blocks[stage].named_children()) if stage in self.blocks else {}
            for place, residual_block in residual_blocks.named_children():
                features = residual_block(features)
                yield f"stages.{stage}.{place}", features
                if place in inserted:
                    features = inserted[place](features)
                    yield f"blocks.{stage}.{place}", features


def save(network: Network, folder: Path) -> None:
    """Write `weights.safetensors` and `network.json`, which rebuilds the network, to a folder."""
    # The initial weights are in weights.safetensors by now, overwritten.
    options = asdict(replace(network.options, weights="none"))
    described = {"identities": network.identities, "options": options}
    (folder / "network.json").write_text(json.dumps(described, indent=2) + "\n")
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, folder / "weights.safetensors")


def load(folder: Path) -> Network:
    """The network that `save` wrote, in evaluation mode.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: they are damaged, or do not fit each other.
    """
    for name in ("network.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} does not exist: {folder} is no trained run")
    try:
        described = json.loads((folder / "network.json").read_text())
        network = Network(described["identities"], NetworkOptions(**described["options"]))
        network.load_state_dict(load_file(folder / "weights.safetensors"))
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"the trained run {folder} cannot be loaded: {error}") from error
    return network.eval()


def _block(name: str, channels: int, options: Mapping[str, Any]) -> nn.Module:
    if not name.isidentifier() or importlib.util.find_spec(f"ianet.blocks.{name}") is None:
        raise ValueError(f"block is {name!r}: there is no file ianet/blocks/{name}.py")
    block: type[nn.Module] = importlib.import_module(f"ianet.blocks.{name}").Block
    try:
        return block(channels, **options)
    except TypeError as error:
        raise ValueError(f"an option of block {name} is wrong: {error}") from error
