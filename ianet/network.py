"""IANet: a backbone, blocks after chosen stages, and a head (Section 3.4, Fig. 6).

The number of training identities and `ianet.options.NetworkOptions` determine a network. The
options are a frozen value that a YAML file can hold.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ianet import backbones
from ianet.options import STAGES, NetworkOptions


class Network(nn.Module):
    """A person re-identification network.

    `forward` takes normalised images, (B, 3, height, width) of any size. In evaluation mode
    `forward` returns the features (B, `feature_size`), to be compared by the cosine. In training
    mode `forward` returns the logits (B, identities) and the embeddings (B, `feature_size`).
    Embeddings are what pooling gives, before the neck. A loss on distances does not conflict with
    the loss on angles there (Bag of Tricks, Section 3.5).

    The backbone has the same state-dict keys with and without blocks, so that blocks can be
    inserted into any trained network.

    Raises:
        ValueError: an unknown or wrong option of a block, or weights that do not fit.
        FileNotFoundError, ConnectionError: see `backbones.build`.
    """

    def __init__(self, identities: int, options: NetworkOptions) -> None:
        super().__init__()
        self.identities = identities
        self.options = options
        backbone = backbones.build(options.backbone, options.weights)
        self.stem = backbone.stem
        self.stages = nn.ModuleDict(
            {stage: nn.ModuleList(blocks) for stage, blocks in backbone.stages.items()}
        )
        # Stage, then the index of the residual block after which a block stands.
        blocks: dict[str, nn.ModuleDict] = {}
        for stage, stage_options in options.after.items():
            last = len(backbone.stages[stage]) - 1
            places = range(last + 1) if options.position == "block" else [last]
            blocks[stage] = nn.ModuleDict(
                {
                    str(place): _build_block(
                        options.block,
                        backbone.channels[stage][place],
                        {**options.options, **stage_options},
                    )
                    for place in places
                }
            )
        self.blocks = nn.ModuleDict(blocks)
        self.feature_size = backbone.channels[STAGES[-1]][-1]
        self.neck = nn.BatchNorm1d(self.feature_size) if options.neck else nn.Identity()
        if options.neck and not options.bias:
            self.neck.register_parameter("bias", None)
        self.classifier = nn.Linear(self.feature_size, identities, bias=options.bias)

    def compile_blocks(self) -> None:
        """Let torch compile the inserted blocks at their first call, where there is a GPU and a C
        compiler.

        A block is dozens of short operations on large maps, which the compiler fuses. Residual
        blocks gain less time than their compilation takes. Each size of batch is compiled once,
        and an epoch has two sizes at most.
        """
        # Triton searches for a compiler in the same way, and fails without one.
        compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
        if torch.cuda.is_available() and compiler:
            for blocks in self.blocks.children():
                for block in blocks.children():
                    block.compile(dynamic=False)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        for _, features in self.intermediates(images):  # noqa: B007 - the last are used
            pass
        embeddings = features.mean(dim=(2, 3))
        features = self.neck(embeddings)
        return (self.classifier(features), embeddings) if self.training else features

    def intermediates(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yield the name and the output, (B, C, H, W), of each module in turn.

        "stem" comes first, then "stages.stage1.0" for a residual block. "blocks.stage1.0" follows
        for the block that is inserted after that residual block.
        """
        features = self.stem(images)
        yield "stem", features
        for stage, residual_blocks in self.stages.items():
            blocks = dict(self.blocks[stage].named_children()) if stage in self.blocks else {}
            for place, residual_block in residual_blocks.named_children():
                features = residual_block(features)
                yield f"stages.{stage}.{place}", features
                if place in blocks:
                    features = blocks[place](features)
                    yield f"blocks.{stage}.{place}", features


def save(network: Network, folder: Path) -> None:
    """Write `weights.safetensors` and `network.json`, which rebuilds the network, to a folder."""
    # Training has replaced the initial weights: loading must not read them again.
    options = asdict(replace(network.options, weights="none"))
    description = {"identities": network.identities, "options": options}
    (folder / "network.json").write_text(json.dumps(description, indent=2) + "\n")
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, folder / "weights.safetensors")


def load(folder: Path) -> Network:
    """Return the network that `save` wrote, in evaluation mode.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a file is damaged, or the two do not fit each other.
    """
    for name in ("network.json", "weights.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} does not exist: {folder} is no trained run")
    try:
        description = json.loads((folder / "network.json").read_text())
        network = Network(description["identities"], NetworkOptions(**description["options"]))
        network.load_state_dict(load_file(folder / "weights.safetensors"))
    except (KeyError, TypeError, RuntimeError, json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"the trained run {folder} cannot be loaded: {error}") from error
    return network.eval()


def _build_block(name: str, channels: int, options: Mapping[str, Any]) -> nn.Module:
    block: type[nn.Module] = importlib.import_module(f"ianet.blocks.{name}").Block
    try:
        return block(channels, **options)
    except TypeError as error:
        raise ValueError(f"an option of block {name} is wrong: {error}") from error
