"""IANet: a backbone, blocks after chosen stages, and a head (Section 3.4, Fig. 6).

The number of training identities and `ianet.options.NetworkOptions` determine a network. The
options are a frozen value that a YAML file can hold.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ianet import backbones
from ianet.description import (
    Description,
    FeatureDescription,
    InputDescription,
    current_versions,
    read_description,
    write_description,
)
from ianet.numerics import zero_denormals
from ianet.options import STAGES, NetworkOptions
from ianet.weights import describe_damage, find_misfits, first_line

DESCRIPTION, WEIGHTS = "network.json", "weights.safetensors"


class Network(nn.Module):
    """A person re-identification network.

    `forward` takes normalised images, (B, 3, height, width) of any size. In evaluation mode
    `forward` returns the features (B, `feature_size`), to be compared by the cosine. In training
    mode `forward` returns the logits (B, identities) and the embeddings (B, `feature_size`).
    Embeddings are what pooling gives, before the neck, unless the options say otherwise. A loss on
    distances does not conflict with the loss on angles there (Bag of Tricks, Section 3.5).

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
        for stage, placed in blocks.items():
            for place, block in placed.items():
                _start_from(backbone.blocks, f"blocks.{stage}.{place}.", block)
        self.feature_size = backbone.channels[STAGES[-1]][-1]
        self.neck = nn.BatchNorm1d(self.feature_size) if options.neck else nn.Identity()
        if options.neck and not options.bias:
            self.neck.register_parameter("bias", None)
        self.classifier = nn.Linear(self.feature_size, identities, bias=options.bias)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        for _, features in self.intermediates(images):  # noqa: B007 - the last are used
            pass
        pooled = features.mean(dim=(2, 3))
        features = self.neck(pooled)
        if not self.training:
            return features
        embeddings = pooled if self.options.embeddings == "pooled" else features
        return self.classifier(features), embeddings

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


class TrainedNetwork(Network):
    """A network that `load` returned.

    Attributes:
        description: of its input and its features, among others.

    Raises:
        ValueError: as `Network`, or features of another size than in the description.
    """

    def __init__(self, description: Description) -> None:
        super().__init__(description.identities, description.options)
        self.description = description
        if self.feature_size != description.features.size:
            raise ValueError(
                f"features.size is {description.features.size}, and the network of these options "
                f"gives {self.feature_size}"
            )


def save(network: Network, folder: Path, *, dataset: str, height: int, width: int) -> None:
    """Write `weights.safetensors` and `network.json`, see `ianet.description`, to a folder.

    Args:
        network: that is trained.
        folder: for both files.
        dataset: the name of the data set on which the network was trained.
        height, width: of its images, in pixels.
    """
    description = describe(network, dataset=dataset, height=height, width=width)
    write_description(description, folder / DESCRIPTION)
    (folder / WEIGHTS).write_bytes(serialize(network))


def describe(network: Network, *, dataset: str, height: int, width: int) -> Description:
    """Return the description of a network; `save` has the arguments."""
    return Description(
        dataset=dataset,
        identities=network.identities,
        input=InputDescription(height, width),
        features=FeatureDescription(network.feature_size),
        # Training has replaced the initial weights: loading must not read them again.
        options=replace(network.options, weights="none"),
        versions=current_versions(),
    )


def serialize(network: Network) -> bytes:
    """Return the weights of a network as the content of a safetensors file, without denormals."""
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    return safetensors.torch.save(zero_denormals(state))


def load(folder: Path) -> TrainedNetwork:
    """Return the network that `save` wrote, in evaluation mode.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: a file is damaged or of another version of ianet, or the two do not fit each
            other; one line.
    """
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} does not exist: {folder} is no trained run")
    description = read_description(folder / DESCRIPTION)
    return restore(
        description,
        (folder / WEIGHTS).read_bytes(),
        description_path=str(folder / DESCRIPTION),
        weights_path=str(folder / WEIGHTS),
        remedy="train the run again",
    )


def restore(
    description: Description,
    weights: bytes,
    *,
    description_path: str,
    weights_path: str,
    remedy: str,
) -> TrainedNetwork:
    """Return the network of a description and of the content of a file of weights.

    Args:
        description: of the network.
        weights: see `serialize`.
        description_path, weights_path: of the two files, for the messages.
        remedy: what a user does about a damaged file.

    Returns:
        The network in evaluation mode.

    Raises:
        ValueError: the weights are damaged as `ianet.weights.describe_damage` says, or of another
            network, or the description asks for a network that cannot be built; one line.
    """
    try:
        state = safetensors.torch.load(weights)
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{weights_path} is damaged ({error}): {remedy}") from error
    name = Path(description_path).name
    # Before the network takes the memory that a wrong number asks for.
    numbers = sum(tensor.numel() for tensor in state.values())
    if description.identities * description.features.size > numbers:
        raise ValueError(
            f"{weights_path} does not fit {name}: the file has fewer numbers than a classifier of "
            f"{description.identities:,} identities"
        )
    try:
        network = TrainedNetwork(description)
    except ValueError as error:
        raise ValueError(f"{description_path}: {error}") from error
    except (ArithmeticError, MemoryError, RuntimeError) as error:  # of wrong numbers
        raise ValueError(
            f"{description_path} asks for a network that cannot be built ({first_line(error)}): "
            f"{remedy}"
        ) from error
    shapes = {name: value.shape for name, value in state.items()}
    expected = {name: value.shape for name, value in network.state_dict().items()}
    wrong = sorted(dict(shapes.items() ^ expected.items()))
    if wrong:
        raise ValueError(
            f"{weights_path} does not fit {name}: {len(wrong)} tensors are missing, unknown or of "
            f"another shape than expected, the first of them {wrong[0]}"
        )
    if damage := describe_damage(state):
        raise ValueError(f"{weights_path} holds {damage}: {remedy}")
    network.load_state_dict(state)
    return network.eval()


def _build_block(name: str, channels: int, options: Mapping[str, Any]) -> nn.Module:
    block: type[nn.Module] = importlib.import_module(f"ianet.blocks.{name}").Block
    try:
        return block(channels, **options)
    except TypeError as error:
        raise ValueError(f"an option of block {name} is wrong: {error}") from error


def _start_from(weights: Mapping[str, Tensor], prefix: str, block: nn.Module) -> None:
    """Copy the weights of a block, if there are those of the same block at the same place."""
    inner = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    state = block.state_dict()
    if inner.keys() == state.keys() and not find_misfits(inner, state):
        block.load_state_dict(inner)
