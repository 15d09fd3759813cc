"""The description of a trained network: all that its user needs to know, as values and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ianet import __version__
from ianet.images import DEVIATION, MEAN
from ianet.options import NetworkOptions, check_types

PACKAGES = ("torch", "torchvision")
MOST_PIXELS = 8192  # of a side, as in `ianet.training.recipe`
LATER = "later"
"""Key of the metadata of a field that older files lack, which then has its default."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class InputDescription:
    """How a picture becomes the input of a network.

    A picture in RGB is resized, its values are scaled, then the mean is taken off, and the
    difference is divided by the deviation.

    Attributes:
        height, width: in pixels.
        channels: their order.
        resize: Pillow's filter, with antialiasing.
        scale: the values that 0 and 255 become.
        mean, deviation: of each channel, of scaled values.

    Raises:
        ValueError: a wrong value, or another than this version of ianet computes with.
    """

    height: int
    width: int
    channels: str = "RGB"
    resize: str = "bilinear, antialiased"
    scale: tuple[float, ...] = (0.0, 1.0)
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION

    def __post_init__(self) -> None:
        check_types(self)
        check_constants(self)
        for name in ("height", "width"):
            pixels = getattr(self, name)
            if not 1 <= pixels <= MOST_PIXELS:
                raise ValueError(
                    f"{name} is {pixels}: it must be 1 pixel at least and {MOST_PIXELS} at most"
                )


@dataclass(frozen=True)
class FeatureDescription:
    """What a network returns for a picture.

    Attributes:
        size: the number of values.
        distance: by which features are compared.
        normalized: whether the features have a length of 1.

    Raises:
        ValueError: a wrong value, or another than this version of ianet computes with.
    """

    size: int
    distance: str = "cosine"
    normalized: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_constants(self)
        if self.size < 1:
            raise ValueError(f"size is {self.size}: it must be 1 at least")


@dataclass(frozen=True)
class Description:
    """A trained network.

    Attributes:
        dataset: the name of the data set on which the network was trained.
        identities: of the training, hence the size of the classifier.
        input, features: of the network.
        options: from which the network is built.
        versions: of Python and of the packages that trained the network, by name.

    Raises:
        ValueError: a wrong value.
    """

    dataset: str
    identities: int
    input: InputDescription
    features: FeatureDescription
    options: NetworkOptions
    versions: Mapping[str, str]

    def __post_init__(self) -> None:
        check_types(self)
        if self.identities < 1:
            raise ValueError(f"identities is {self.identities}: it must be 1 at least")
        if self.options.weights != "none":
            raise ValueError(
                f"options.weights is {self.options.weights!r}: a trained network needs none to "
                "start from"
            )


def current_versions() -> dict[str, str]:
    """Return the versions of Python, ianet and what ianet computes with, by name."""
    packages = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version(), "ianet": __version__, **packages}


def check_constants(description: Any) -> None:
    """Raise ValueError unless what has a default has its default.

    This version of ianet computes with the defaults alone. A file names them for its readers.
    """
    for field in fields(description):
        value = getattr(description, field.name)
        if field.default is not MISSING and value != field.default:
            raise ValueError(
                f"{field.name} is {value!r}: this version of ianet computes with {field.default!r}"
            )


def write_description(description: Description, path: Path) -> None:
    """Write a description as JSON."""
    path.write_text(json.dumps(asdict(description), indent=2) + "\n")


def read_description(path: Path) -> Description:
    """Return the description in a JSON file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is damaged, or of another version of ianet; one line.
    """
    return parse_description(Description, path.read_bytes(), str(path), "train the run again")


def parse_description(kind: type[Value], content: bytes, where: str, remedy: str) -> Value:
    """Return the description of a kind, a dataclass, from JSON.

    Args:
        kind: of the description.
        content: of the file.
        where: the content stands, for the messages.
        remedy: what a user does about a file that is damaged or of an older version.

    Raises:
        ValueError: the content is damaged, or of another version of ianet; one line.
    """
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is damaged ({error}): {remedy}") from error
    try:
        value: Value = _build(kind, values, remedy)
    except (ValueError, RecursionError) as error:  # texts of what is nested deeply recur too
        raise ValueError(f"{where}: {error}") from error
    return value


def _build(kind: type[Any], content: Any, remedy: str) -> Any:
    """Return a value of a dataclass, whose fields may be dataclasses too, from plain data."""
    hints = get_type_hints(kind)
    if not isinstance(content, dict):
        text = " ".join(repr(content).split())[:80]
        raise ValueError(f"{text} stands where {', '.join(hints)} are expected")
    later = {field.name: field.default for field in fields(kind) if field.metadata.get(LATER)}
    content = {**later, **content}
    missing = [name for name in hints if name not in content]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} missing: the file is of an older version of ianet, so {remedy}"
        )
    unknown = [name for name in content if name not in hints]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)} unknown: the file is of a newer version of ianet, so update "
            "ianet"
        )
    return kind(**{name: _convert(hint, content[name], remedy) for name, hint in hints.items()})


def _convert(hint: Any, content: Any, remedy: str) -> Any:
    """Return plain data, with values of dataclasses where a hint asks for them."""
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and is_dataclass(hint):
        return _build(hint, content, remedy)
    if origin is tuple and isinstance(content, list):
        return tuple(_convert(arguments[0], item, remedy) for item in content)
    if origin is UnionType and content is not None:
        return _convert(arguments[0], content, remedy)
    return content
