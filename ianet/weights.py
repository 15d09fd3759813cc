"""Weights from elsewhere: checkpoints of other projects, and models of our own.

The names in a checkpoint say which project wrote it:

| project | backbone | neck | classifier |
|---|---|---|---|
| torchvision | conv1.weight, ... | | fc.weight |
| torchreid | conv1.weight, ... | | classifier.weight |
| reid-strong-baseline | base.conv1.weight, ... | bottleneck.weight, ... | classifier.weight |
| fast-reid | backbone.conv1.weight, ... | heads.bottleneck.0.weight, ... | heads.weight |
| ianet | stem.0.weight, stages.stage1.0..., ... | neck.weight, ... | classifier.weight |

DataParallel puts `module.` before each name. Training loops put the weights under `state_dict` or
`model`, beside other values. Nothing in a file is run.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

MODEL_WEIGHTS = "model.safetensors"  # in the folder or the zip of a model
MOST_BYTES = 2**30  # of the weights in a zip, decompressed
WRAPPERS = ("state_dict", "model", "model_state_dict")
EXPECTED = "expected is a whole safetensors or state-dict file, or a model"

NUMBERS: list[Any] = [
    *(
        (np.float64(0).__reduce__()[0], f"{package}.multiarray.scalar")
        for package in ("numpy.core", "numpy._core")  # of NumPy 1 and of NumPy 2
    ),
    np.dtype,
    *(type(np.dtype(code)) for code in "?bhilqBHILQefd"),
]
"""What a file may name beside tensors: what makes a number of NumPy, and its dtypes.

torchreid saves a score beside the weights as such a number. Arrays and objects stay refused.
"""


class Names(NamedTuple):
    """The names of a project's weights: a pattern for each part, and what follows it is the name.

    Attributes:
        project: `torchvision` stands for its names alone, whoever trained the network.
        sign: a name that only this project has.
        backbone, neck, classifier: patterns of the start of the names.
        dropped: pattern of names that are no weights.
    """

    project: str
    sign: str
    backbone: str
    neck: str
    classifier: str
    dropped: str = r"(?!)"


PLAIN = r"(?=conv\d\.|bn\d\.|layer\d\.|features\.|inception)"
PROJECTS = (
    Names("ianet", r"stages\.", r"(?=stem\.|stages\.)", r"neck\.", r"classifier\."),
    Names("strong_baseline", r"base\.", r"base\.", r"bottleneck\.", r"classifier\."),
    Names(
        "fastreid",
        r"backbone\.",
        r"backbone\.",
        r"heads\.(bottleneck\.0|bnneck)\.",
        r"heads\.(classifier\.|(?=weight$))",
        r"pixel_(mean|std)$",
    ),
    Names("torchreid", r"classifier\.weight$", PLAIN, r"(?!)", r"classifier\."),
    Names(
        "torchvision", r"", PLAIN, r"(?!)", r"(fc|classifier\.1)\.(?=(weight|bias)$)", r"aux\d\."
    ),
)


class Checkpoint(NamedTuple):
    """The weights in a file, by their part of a network, under the names within the part.

    Attributes:
        project: that has such names, see `PROJECTS`.
        backbone: under torchvision's names, or of `ianet` under ours.
        neck: weight, bias, running_mean and running_var of the BatchNorm before the classifier.
        classifier: weight and bias.
        others: under their names in the file.
    """

    project: str
    backbone: dict[str, Tensor]
    neck: dict[str, Tensor]
    classifier: dict[str, Tensor]
    others: dict[str, Tensor]


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the weights of a file, or of the folder or zip of a model.

    Args:
        path: of a safetensors file, of a file of `torch.save`, or of a model.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a damaged file, a file without weights, or weights that are damaged as
            `describe_damage` says; one line.
    """
    if not path.exists():
        raise FileNotFoundError(
            f"the weights file {path} does not exist: give a safetensors or state-dict file, a "
            "model, imagenet or none"
        )
    if not (path.is_file() or path.is_dir()):
        raise ValueError(f"the weights file {path} is no regular file: {EXPECTED}")
    try:
        content = _read(path)
    except Exception as error:  # each library raises other kinds for a damaged file
        raise ValueError(f"the weights {_describe_failure(path, error)}: {EXPECTED}") from error
    state = _unwrap(content)
    if not state:
        names = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else ""
        raise ValueError(
            f"the weights file {path} holds a {type(content).__name__}"
            f"{f' of {names}' if names else ''}, and no tensor under a name: {EXPECTED}"
        )
    if damage := describe_damage(state):
        raise ValueError(f"the weights {path} hold {damage}: take another file")
    return sort_weights(state)


def describe_damage(state: Mapping[str, Tensor]) -> str:
    """Return which values no network can have as weights, or "" where all are right.

    Weights are dense tensors of floating-point numbers, of any precision, that are finite. No
    variance is negative. A counter of batches may be of whole numbers.
    """
    for what, is_wrong in DAMAGE.items():
        names = [name for name, value in state.items() if is_wrong(name, value)]
        if names:
            return f"{what} in {len(names)} of {len(state)} tensors, the first of them {names[0]}"
    return ""


FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types of weights. torch cannot tell infinite values of smaller floating-point types."""


def _is_dense(name: str, value: Tensor) -> bool:
    """Return whether a tensor holds each of its values, as a floating-point number or a counter."""
    has_values = value.layout is torch.strided and not (value.is_meta or value.is_nested)
    if not has_values or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return False  # such as a single value that stands for a trillion
    is_counter = name.endswith("num_batches_tracked") and value.dtype is torch.int64
    return value.dtype in FLOATS or is_counter


DAMAGE: dict[str, Callable[[str, Tensor], bool]] = {
    "other values than dense floating-point numbers": lambda name, value: (
        not _is_dense(name, value)
    ),
    "NaN or infinite values": lambda name, value: not bool(value.isfinite().all()),
    "negative variances": lambda name, value: (
        name.endswith("running_var") and bool((value.float() < 0).any())
    ),
}
"""What weights may hold that no network can have, in the order in which it is looked for."""


def _describe_failure(path: Path, error: Exception) -> str:
    """What could not be read, and why."""
    if path.is_dir():
        return f"folder {path} is no model ({first_line(error)})"
    with path.open("rb") as file:
        start = file.read(12)
    # torch advises to set `weights_only` to False, which would run code in the file.
    if not (isinstance(error, UnpicklingError) or "weights_only" in str(error)):
        reason = first_line(error)
    elif start.startswith((b"PK", b"\x80")):
        reason = "it holds Python objects, which could run code: save its state_dict alone"
    else:
        reason = "it is no file of torch.save"
    return f"file {path}, which begins with {start!r}, cannot be read ({reason})"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, 200 signs at most, or its type."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _read(path: Path) -> Any:
    if path.is_dir():
        if not (path / MODEL_WEIGHTS).is_file():
            raise ValueError(f"{MODEL_WEIGHTS} in it is missing or no regular file")
        return safetensors.torch.load_file(path / MODEL_WEIGHTS)
    if path.suffix.lower() == ".zip":
        with ZipFile(path) as archive:
            members = [
                member
                for member in archive.infolist()
                if PurePosixPath(member.filename).name == MODEL_WEIGHTS
            ]
            if len(members) != 1:
                raise ValueError(f"it has {len(members)} files {MODEL_WEIGHTS}, and a model has 1")
            [member] = members
            if member.file_size > MOST_BYTES:  # no more than that is ever decompressed
                raise ValueError(f"{member.filename} has {member.file_size:,} bytes: unpack it")
            return safetensors.torch.load(archive.read(member))
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    # A warning would stand beside the one line of an error.
    with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(NUMBERS):
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrap(content: Any) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint, without what training loops put around them."""
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        return {}
    return {
        name.removeprefix("module."): value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }


def sort_weights(state: Mapping[str, Tensor]) -> Checkpoint:
    """Return weights by their part of a network."""
    names = next(names for names in PROJECTS if _matches(names.sign, state))
    parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "neck": {}, "classifier": {}}
    others = {}
    for name, value in state.items():
        for part, content in parts.items():
            match = re.match(getattr(names, part), name)
            if match:
                content[name[match.end() :]] = value
                break
        else:
            if not re.match(names.dropped, name):
                others[name] = value
    return Checkpoint(names.project, **parts, others=others)


def _matches(pattern: str, names: Iterable[str]) -> bool:
    return any(re.match(pattern, name) for name in names)


def find_misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return how weights differ from those that are expected, a clause for each kind.

    Files written before PyTorch 0.4.1 have no `num_batches_tracked`, which nothing needs.
    """
    missing = [
        name for name in expected if name not in state and not name.endswith("num_batches_tracked")
    ]
    unknown = [name for name in state if name not in expected]
    reshaped = [
        f"{name} of shape {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state and state[name].shape != value.shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("of another shape", reshaped))
    return [
        f"{len(names)} tensors are {kind}, the first of them {names[0]}"
        for kind, names in kinds
        if names
    ]
