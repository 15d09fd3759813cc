"""torchvision's networks as a stem and four named stages, with last stride 1 (Section 3.4).

Every stage is a sequence of residual blocks, in GoogLeNet of inception modules. "stage1" has
1/4 of the input's resolution, "stage2" 1/8, "stage3" and "stage4" 1/16. The last down-sampling
is removed, following Sun et al., Beyond Part Models (ECCV 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ianet.images import DEVIATION, MEAN
from ianet.options import STAGES, refuse_unknown


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier.

    Attributes:
        stem: (B, 3, H, W) to the input of the first stage.
        stages: name to the residual blocks (or inception modules) of a stage, in order.
        channels: stage name to the output channels of each of these blocks.
    """

    stem: nn.Sequential
    stages: dict[str, list[nn.Module]]
    channels: dict[str, list[int]]


def build(name: str, weights: str = "none") -> Backbone:
    """Return a backbone with its initial weights.

    Args:
        name: one of `ianet.options.BACKBONES`.
        weights: "none" (random), "imagenet" (torchvision's download), or the path of a
            safetensors or state-dict file under torchvision's key names, with or without a
            classifier.

    Raises:
        ValueError: an unknown name, or a file that does not fit the network.
        FileNotFoundError: no such file.
        ConnectionError: "imagenet" without a connection to the internet.
    """
    # torchvision imports torch's compiler, which takes 2 s. Code that only plans a network or
    # computes with features does not pay for the compiler.
    from torchvision import models

    refuse_unknown("backbone", name, CONVERSIONS)
    # Spelt out, as torchvision warns that the default of GoogLeNet's first weights will change.
    options = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    model = models.get_model(name, weights=None, **options)
    if weights != "none":
        _load(model, name, weights)
    return CONVERSIONS[name](model)


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
}
"""Name to the function that takes torchvision's network apart."""


def _load(model: nn.Module, name: str, weights: str) -> None:
    state = _download(name) if weights == "imagenet" else _read(Path(weights))
    state = {key: value for key, value in state.items() if not key.startswith(_CLASSIFIERS)}
    expected = {
        key: value for key, value in model.state_dict().items() if not key.startswith(_CLASSIFIERS)
    }
    # Files written before PyTorch 0.4.1 have no `num_batches_tracked`.
    missing = [
        key for key in expected if key not in state and not key.endswith("num_batches_tracked")
    ]
    unknown = [key for key in state if key not in expected]
    reshaped = [
        f"{key} of shape {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    differences = [
        f"{len(wrong)} tensors are {what}, the first of them {wrong[0]}"
        for what, wrong in (
            ("missing", missing), ("unknown", unknown), ("of another shape", reshaped),
        )
        if wrong
    ]  # fmt: skip
    if differences:
        raise ValueError(
            f"the weights {weights} do not fit {name}, which has {len(expected)} tensors beside "
            f"its classifier: {'; '.join(differences)}"
        )
    infinite = [key for key, value in state.items() if not value.isfinite().all()]
    if infinite:
        raise ValueError(
            f"the weights {weights} hold NaN or infinite values in {len(infinite)} of "
            f"{len(state)} tensors, the first of them {infinite[0]}: take another file"
        )
    model.load_state_dict(state, strict=False)


_CLASSIFIERS = ("fc.", "classifier.", "aux1.", "aux2.")
"""Parts that no backbone has; GoogLeNet has two auxiliary classifiers."""


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
            f"the ImageNet weights of {name} are damaged ({_first_line(error)}): delete {file}, "
            "and the next start downloads the file again"
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.exists():
        raise FileNotFoundError(
            f"the weights file {path} does not exist: give a safetensors or state-dict file, "
            "imagenet or none"
        )
    if not path.is_file():
        raise ValueError(f"the weights file {path} is no regular file: {_EXPECTED}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each library raises other kinds for a damaged file
        with path.open("rb") as file:
            start = file.read(12)
        raise ValueError(
            f"the weights file {path}, which begins with {start!r}, cannot be read "
            f"({_first_line(error)}): {_EXPECTED}"
        ) from error
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"the weights file {path} holds a {type(state).__name__}: {_EXPECTED}")
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(
            f"the weights file {path} holds {', '.join(map(str, list(state)[:5]))}, and "
            f"{others[0]} is a {type(state[others[0]]).__name__}: {_EXPECTED}"
        )
    return dict(state)


_EXPECTED = "expected is a whole safetensors or state-dict file, tensors by torchvision's names"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
