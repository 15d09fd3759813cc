"""torchvision's networks as a stem and four named stages, with last stride 1 (Section 3.4).

Every stage is a sequence of residual blocks. "stage1" has 1/4 of the input's resolution,
"stage2" 1/8, "stage3" and "stage4" 1/16: the last down-sampling is removed, following Sun et
al., Beyond Part Models (ECCV 2018).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import nn
from torchvision import models

STAGES = ("stage1", "stage2", "stage3", "stage4")


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier.

    Attributes:
        stem: (B, 3, H, W) to the input of the first stage.
        stages: name to the residual blocks of a stage, in order.
        channels: stage name to the channels that each of its residual blocks gives.
    """

    stem: nn.Sequential
    stages: dict[str, list[nn.Module]]
    channels: dict[str, list[int]]


def build(name: str, weights: str = "none") -> Backbone:
    """A backbone with its initial weights.

    Args:
        name: one of `NAMES`.
        weights: "none" (random), "imagenet" (torchvision's download), or the path of a
            safetensors or state-dict file under torchvision's key names; a classifier in it
            is not needed.

    Raises:
        ValueError: an unknown name, or a file that does not fit the network.
        FileNotFoundError: no such file.
        ConnectionError: "imagenet" where there is no network.
    """
    if name not in NAMES:
        raise ValueError(f"backbone is {name!r}: choose one of {', '.join(NAMES)}")
    model = models.get_model(name, weights=None)
    if weights != "none":
        _load(model, name, weights)
    return NAMES[name](model)


def _resnet(model: Any) -> Backbone:
    first = model.layer4[0]
    for convolution in (first.conv1, first.conv2, first.downsample[0]):
        convolution.stride = (1, 1)
    stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
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


NAMES: dict[str, Callable[..., Backbone]] = {
    "resnet18": _resnet,
    "resnet34": _resnet,
    "resnet50": _resnet,
    "resnet101": _resnet,
    "mobilenet_v2": _mobilenet_v2,
}


def _load(model: nn.Module, name: str, weights: str) -> None:
    state = _download(name) if weights == "imagenet" else _read(Path(weights))
    state = {key: value for key, value in state.items() if not key.startswith(_CLASSIFIERS)}
    wanted = {
        key: value for key, value in model.state_dict().items() if not key.startswith(_CLASSIFIERS)
    }
    # Files from before PyTorch 0.4.1 do not count their batches.
    wrong = [
        key
        for key, value in wanted.items()
        if not key.endswith("num_batches_tracked")
        and (key not in state or state[key].shape != value.shape)
    ]
    if wrong:
        raise ValueError(
            f"the weights {weights} do not fit {name}: {len(wrong)} of {len(wanted)} tensors are "
            f"missing or have another shape, the first of them {wrong[0]}"
        )
    model.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


_CLASSIFIERS = ("fc.", "classifier.")


def _download(name: str) -> dict[str, torch.Tensor]:
    try:
        # Version 1 is what the field of 2019 started from; later ones are trained otherwise.
        available = models.get_model_weights(name)
        return available["IMAGENET1K_V1"].get_state_dict(progress=False, check_hash=True)
    except (URLError, TimeoutError) as error:
        raise ConnectionError(
            f"the ImageNet weights of {name} could not be downloaded ({error}): set weights to "
            "a file that you have, under torchvision's key names, or to none"
        ) from error


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"the weights file {path} does not exist: give a safetensors or state-dict file, "
            "imagenet or none"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each library raises its own kinds for a damaged file
        raise ValueError(f"the weights file {path} cannot be read: {error}") from error
