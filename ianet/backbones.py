"""torchvision's networks as a stem and four named stages, with last stride 1 (Section 3.4).

Every stage is a sequence of residual blocks, in GoogLeNet of inception modules. "stage1" has
1/4 of the input's resolution, "stage2" 1/8, "stage3" and "stage4" 1/16. The last down-sampling
is removed, following Sun et al., Beyond Part Models (ECCV 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor, nn

from ianet.images import DEVIATION, MEAN
from ianet.options import PROJECTS, RESNETS, STAGES, refuse_unknown
from ianet.weights import (
    Checkpoint,
    find_misfits,
    first_line,
    read_checkpoint,
    sort_weights,
)


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier.

    Attributes:
        stem: (B, 3, H, W) to the input of the first stage.
        stages: name to the residual blocks (or inception modules) of a stage, in order.
        channels: stage name to the output channels of each of these blocks.
        blocks: weights of inserted blocks, under their names in a `Network`, if the initial weights
            are those of a model of ianet.
    """

    stem: nn.Sequential
    stages: dict[str, list[nn.Module]]
    channels: dict[str, list[int]]
    blocks: dict[str, Tensor] = field(default_factory=dict)


def build(name: str, weights: str = "none") -> Backbone:
    """Return a backbone with its initial weights.

    Args:
        name: one of `ianet.options.BACKBONES`.
        weights: "none" (random), "imagenet" (torchvision's download), or a path: of a safetensors
            or state-dict file, see `ianet.weights`, or of a model. A classifier and a neck are
            dropped.

    Raises:
        ValueError: an unknown name, or a file that does not fit the network.
        FileNotFoundError: no such file.
        ConnectionError: "imagenet" without a connection to the internet.
    """
    # torchvision imports torch's compiler, which takes 2 s. Code that only plans a network or
    # computes with features does not pay for the compiler.
    from torchvision import models

    refuse_unknown("backbone", name, CONVERSIONS)
    architecture = find_architecture(name)
    # Spelt out, as torchvision warns that the default of GoogLeNet's first weights will change.
    options = {"aux_logits": False, "init_weights": True} if architecture == "googlenet" else {}
    model = models.get_model(architecture, weights=None, **options)
    backbone = CONVERSIONS[name](model)
    if weights == "none":
        return backbone
    checkpoint = (
        sort_weights(_download(architecture))
        if weights == "imagenet"
        else read_checkpoint(Path(weights))
    )
    _load(backbone, model, name, weights, checkpoint)
    return replace(backbone, blocks=checkpoint.others if checkpoint.project == "ianet" else {})


def find_architecture(name: str) -> str:
    """Return torchvision's name of a backbone."""
    for project in PROJECTS:
        name = name.removesuffix(f"_{project}")
    return name


def _resnet(model: Any, project: str = "") -> Backbone:
    """Return a ResNet, or a ResNet as another project computes it with the same weights.

    torchreid keeps the last down-sampling. fast-reid pools with ceil_mode and without padding
    after the first convolution. reid-strong-baseline has no ReLU there.
    """
    if project != "torchreid":
        first = model.layer4[0]
        for convolution in (first.conv1, first.conv2, first.downsample[0]):
            convolution.stride = (1, 1)
    pool = nn.MaxPool2d(3, 2, ceil_mode=True) if project == "fastreid" else model.maxpool
    relu = [] if project == "strong_baseline" else [model.relu]
    stem = nn.Sequential(model.conv1, model.bn1, *relu, pool)
    layers = (model.layer1, model.layer2, model.layer3, model.layer4)
    stages = {stage: list(layer) for stage, layer in zip(STAGES, layers, strict=True)}
    channels = {
        stage: [getattr(block, "bn3", block.bn2).num_features for block in blocks]
        for stage, blocks in stages.items()
    }
    return Backbone(stem, stages, channels)


def _mobilenet_v2(model: Any) -> Backbone:
    blocks = list(model.features)
    blocks[14].conv[1][0].stride = (1, 1)  # the last down-sampling, 96 to 160 channels
    # Its stages by resolution: 24, 32, then 64 and 96, then 160 to 1280 channels.
    cuts = {"stage1": (2, 4), "stage2": (4, 7), "stage3": (7, 14), "stage4": (14, 19)}
    stages = {stage: blocks[start:end] for stage, (start, end) in cuts.items()}
    channels = {stage: [block.out_channels for block in blocks] for stage, blocks in stages.items()}
    return Backbone(nn.Sequential(*blocks[:2]), stages, channels)


class _HalfMeanHalfDeviation(nn.Module):
    """Convert images normalised by ImageNet's mean and deviation to images in [-1, 1]."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in (("mean", MEAN), ("deviation", DEVIATION)):
            # Constants follow the module to a device, but are none of its weights.
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images * self.deviation + self.mean - 0.5) / 0.5


def _googlenet(model: Any) -> Backbone:
    # The ImageNet weights come from TensorFlow and expect values in [-1, 1]. torchvision converts
    # the input (`transform_input`) only for a network built with these weights. Here the input is
    # always converted: a trained network is loaded without the ImageNet weights, and must see the
    # input of its training. Files of weights are assumed to expect the same input.
    stem = nn.Sequential(_HalfMeanHalfDeviation(), model.conv1, model.maxpool1)
    # Stages by resolution. Stage 1 has two convolutions instead of inception modules. The last
    # down-sampling, maxpool4 before 5a, is left out.
    stages: dict[str, list[nn.Module]] = {
        "stage1": [model.conv2, model.conv3],
        "stage2": [nn.Sequential(model.maxpool2, model.inception3a), model.inception3b],
        "stage3": [
            nn.Sequential(model.maxpool3, model.inception4a),
            model.inception4b,
            model.inception4c,
            model.inception4d,
            model.inception4e,
        ],
        "stage4": [model.inception5a, model.inception5b],
    }
    channels = {  # Szegedy et al., Going Deeper with Convolutions (CVPR 2015), Table 1
        "stage1": [64, 192],
        "stage2": [256, 480],
        "stage3": [512, 512, 512, 528, 832],
        "stage4": [832, 1024],
    }
    return Backbone(stem, stages, channels)


CONVERSIONS: dict[str, Callable[[Any], Backbone]] = {
    "resnet18": _resnet,
    "resnet34": _resnet,
    "resnet50": _resnet,
    "resnet101": _resnet,
    "mobilenet_v2": _mobilenet_v2,
    "googlenet": _googlenet,
    **{
        f"{name}_{project}": partial(_resnet, project=project)
        for project in PROJECTS
        for name in RESNETS
    },
}
"""Name to the function that takes torchvision's network apart."""


def _load(
    backbone: Backbone, model: nn.Module, name: str, weights: str, checkpoint: Checkpoint
) -> None:
    """Copy the weights of a checkpoint to a backbone, whose modules are those of `model`."""
    if checkpoint.project == "ianet":
        module: nn.Module = nn.ModuleDict({"stem": backbone.stem, "stages": _to_module(backbone)})
        expected = module.state_dict()
    else:
        module = model
        expected = sort_weights(model.state_dict()).backbone
    state = checkpoint.backbone
    misfits = find_misfits(state, expected)
    if misfits:
        raise ValueError(
            f"the weights {weights} do not fit {name}, which has {len(expected)} tensors beside "
            f"its classifier: {'; '.join(misfits)}"
        )
    module.load_state_dict(state, strict=False)


def _to_module(backbone: Backbone) -> nn.ModuleDict:
    return nn.ModuleDict(
        {stage: nn.ModuleList(blocks) for stage, blocks in backbone.stages.items()}
    )


def _download(name: str) -> dict[str, Tensor]:
    from torchvision import models  # here for the reason given in `build`

    # The field of 2019 started from version 1; later versions are trained otherwise.
    version = models.get_model_weights(name)["IMAGENET1K_V1"]
    try:
        return version.get_state_dict(progress=False, check_hash=True)
    except (URLError, TimeoutError) as error:
        raise ConnectionError(
            f"the ImageNet weights of {name} could not be downloaded ({error}): set weights to "
            "a file that you have, under torchvision's key names, or to none"
        ) from error
    except (RuntimeError, EOFError, UnpicklingError) as error:
        file = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(version.url).name)
        raise ValueError(
            f"the ImageNet weights of {name} are damaged ({first_line(error)}): delete {file}, "
            "and the next start downloads the file again"
        ) from error
