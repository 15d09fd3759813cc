"""Checkpoints of other projects as networks of our own, which give the same features."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from ianet.network import Network
from ianet.options import PROJECTS, RESNETS, NetworkOptions, refuse_unknown
from ianet.weights import Checkpoint, read_checkpoint

NOTES = {
    "fastreid": "fast-reid resizes by a bicubic filter and ianet by a bilinear one, so the scores "
    "of the two differ slightly"
}
"""What differs between a project and `ianet` and is no part of the network, by project."""


class Conversion(NamedTuple):
    """What became of the weights in a checkpoint.

    Attributes:
        network: in evaluation mode.
        project: whose network it is: one of `ianet.options.PROJECTS`, or torchvision.
        matched: number of tensors of the backbone and the neck.
        dropped: names in the checkpoint that the network has no use for.
    """

    network: Network
    project: str
    matched: int
    dropped: list[str]


def convert(path: Path, backbone: str, project: str | None = None) -> Conversion:
    """Return the network of a checkpoint.

    The features are those after the neck, if there is a neck. The classifier is kept if it fits.

    Args:
        path: of the checkpoint, see `ianet.weights.read_checkpoint`.
        backbone: of torchvision, see `ianet.options.BACKBONES`.
        project: that trained the network; None takes the project by the names in the checkpoint.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown name, or a checkpoint of another network; one line.
    """
    checkpoint = read_checkpoint(path)
    if checkpoint.project == "ianet":
        raise ValueError(f"{path} is a network of ianet: its folder says all that a model needs")
    writer = project or checkpoint.project
    refuse_unknown("project", writer, ("torchvision", *PROJECTS))
    name = f"{backbone}_{writer}" if writer in PROJECTS and backbone in RESNETS else backbone
    if checkpoint.others:
        first = min(checkpoint.others)
        raise ValueError(
            f"{path} is not of {backbone} with average pooling: {len(checkpoint.others)} tensors "
            f"have no place there, the first of them {first}, "
            f"{tuple(checkpoint.others[first].shape)}"
        )
    head = {
        f"{part}.{key}": value
        for part, values in (("neck", checkpoint.neck), ("classifier", checkpoint.classifier))
        for key, value in values.items()
    }
    if "neck.bias" in head and not head["neck.bias"].any():
        del head["neck.bias"]  # frozen at 0 in the training
    weight = checkpoint.classifier.get("weight")
    options = NetworkOptions(
        backbone=name,
        weights=str(path),
        neck=bool(checkpoint.neck),
        bias=not head.keys().isdisjoint({"neck.bias", "classifier.bias"}),
    )
    network = Network(1 if weight is None else len(weight), options)
    _check_neck(path, checkpoint, network)
    state = network.state_dict()
    head_state = {
        key: value
        for key, value in head.items()
        if key in state and state[key].shape == value.shape
    }
    with torch.no_grad():
        network.classifier.weight.zero_()
        if network.classifier.bias is not None:
            network.classifier.bias.zero_()
    network.load_state_dict(head_state, strict=False)
    surplus = sorted(set(head) - set(head_state))
    return Conversion(
        network.eval(), writer, len(checkpoint.backbone) + len(checkpoint.neck), surplus
    )


def _check_neck(path: Path, checkpoint: Checkpoint, network: Network) -> None:
    """Raise ValueError unless the neck is BatchNorm of the features."""
    size = (network.feature_size,)
    for key in ("weight", "bias", "running_mean", "running_var"):
        value = checkpoint.neck.get(key)
        if checkpoint.neck and (value is None or value.shape != size):
            problem = "missing" if value is None else f"of shape {tuple(value.shape)}"
            raise ValueError(
                f"{path} has another neck than BatchNorm of {size[0]} features: {key} is {problem}"
            )
