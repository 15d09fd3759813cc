"""params.yaml and experiments/*.yaml as validated, frozen values.

Nothing here imports torch: planning and tables need none of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

Model = TypeVar("Model", bound=BaseModel)
Options = TypeVar("Options")  # a dataclass

PARAMS = Path("params.yaml")
EXPERIMENTS = Path("experiments")


class SettingsError(ValueError):
    """An input of the user's that must be mended; the message says where and how."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# Names become parts of stage names, file names and command lines.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]


class Dataset(_Value):
    reader: Name
    source: Path
    published: bool = True
    held_out: int = Field(ge=0)
    recipe: Name
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    networks: Literal["all"] | tuple[Name, ...] = "all"

    def runs(self, network: str) -> bool:
        """Whether that network is to be run on it."""
        return self.networks == "all" or network in self.networks


class Synthetic(_Value):
    train_identities: int
    test_identities: int
    distractors: int
    junk: int
    seed: int


class RecipeSettings(_Value):
    """`training` holds the fields of `ianet.training.Recipe`."""

    hold_out: bool = False
    network: dict[str, Any] = {}
    training: dict[str, Any]

    @property
    def size(self) -> str:
        return f"{self.training['height']}x{self.training['width']}"

    @model_validator(mode="after")
    def _has_size(self) -> RecipeSettings:
        for side in ("height", "width"):
            if not isinstance(self.training.get(side), int):
                raise ValueError(f"training.{side} must be given, in pixels")
        return self


class Settings(_Value):
    at_hand: tuple[Name, ...] = Field(min_length=1)
    workers: Literal["auto"] | Annotated[int, Field(ge=1)]
    datasets: dict[Name, Dataset]
    synthetic: Synthetic
    recipes: dict[Name, RecipeSettings]
    networks: dict[Name, dict[str, Any]]

    @model_validator(mode="after")
    def _names_exist(self) -> Settings:
        for name in self.at_hand:
            _known(name, self.datasets, "at_hand", "datasets")
        for name, dataset in self.datasets.items():
            _known(dataset.recipe, self.recipes, f"datasets.{name}.recipe", "recipes")
            if dataset.networks != "all":
                for network in dataset.networks:
                    _known(network, self.networks, f"datasets.{name}.networks", "networks")
        return self


class Row(_Value):
    """A line of a table: a network, and the paper's numbers by data set, null where lost."""

    label: str
    network: Name
    paper: dict[Name, tuple[float | None, ...]] = {}


class Experiment(_Value):
    title: str
    caption: str
    metrics: tuple[Literal["top-1", "top-5", "top-10", "mAP"], ...] = Field(min_length=1)
    rows: tuple[Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_rectangular(self) -> Experiment:
        for row in self.rows:
            for dataset, numbers in row.paper.items():
                if len(numbers) != len(self.metrics):
                    raise ValueError(
                        f"row {row.label!r} has {len(numbers)} numbers of the paper for "
                        f"{dataset} and {len(self.metrics)} metrics"
                    )
        return self


class Portrait(_Value):
    """The label of an image, and the person in it, see `ianet.datasets.synthetic.portrait`."""

    label: str
    person: int = Field(ge=0)
    facing: float
    stride: float
    phase: float
    stature: float = Field(gt=0)
    camera: int


class Photograph(_Value):
    """An image of a data set: its label, its file's name, and points in it.

    A point is given by name, as fractions of the image's height and width.
    """

    label: str
    image: str
    points: dict[str, tuple[float, float]]


class Line(_Value):
    """A line of maps, and whether their colours are logarithmic.

    `options` are of `ianet.blocks.ia.SpatialIA`, in place of the trained block's own.
    """

    options: dict[str, Any] = {}
    logarithmic: bool = False


class Figure(_Value):
    """People, and what a network sees in them.

    Attributes:
        drawing: the function of `ianet.drawing`.
        network, stage: after which stage of which network the block stands.
        size: height and width to which images are drawn, in pixels.
        people: synthetic ones, a row each.
        photographs: by data set, for a run on real people.
        points: whose receptive fields are shown, by name.
        maps: title to options of `SpatialIA`: a receptive field of each point.
        lines: label to what distinguishes one line of these maps from the next.
        channels: of CIA's output, counted from 1.
    """

    title: str
    caption: str
    drawing: Literal["portraits"]
    network: Name
    stage: str
    size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=16)]]
    people: tuple[Portrait, ...] = Field(min_length=1)
    photographs: dict[Name, tuple[Photograph, ...]] = {}
    points: tuple[str, ...] = Field(min_length=1)
    maps: dict[str, dict[str, Any]] = Field(min_length=1)
    lines: dict[str, Line] = Field(min_length=1)
    channels: tuple[Annotated[int, Field(ge=1)], ...] = ()


def load() -> Settings:
    """params.yaml of the working directory.

    Raises:
        SettingsError: missing, unreadable or wrong; one line for each mistake.
    """
    return _validated(Settings, PARAMS)


def experiments(settings: Settings) -> dict[str, Experiment | Figure]:
    """experiments/*.yaml by name: the tables in the order of their names, then the figures.

    A file that is named figure* describes a figure, every other one a table.

    Raises:
        SettingsError: none there, one of them wrong, or a network that params.yaml lacks.
    """
    paths = sorted(
        EXPERIMENTS.glob("*.yaml"), key=lambda path: (path.stem.startswith("figure"), path)
    )
    if not paths:
        raise SettingsError(f"{EXPERIMENTS}/ holds no *.yaml: run this in the project's root")
    found: dict[str, Experiment | Figure] = {
        path.stem: _validated(Figure, path)
        if path.stem.startswith("figure")
        else _validated(Experiment, path)
        for path in paths
    }
    for name, experiment in found.items():
        if isinstance(experiment, Figure):
            named = {"network": experiment.network}
        else:
            named = {f"row {row.label!r}": row.network for row in experiment.rows}
        for where, network in named.items():
            try:
                _known(network, settings.networks, where, "networks")
            except ValueError as error:
                raise SettingsError(f"{EXPERIMENTS / name}.yaml: {error}") from error
    return found


def _known(name: str, among: dict[str, Any], where: str, what: str) -> None:
    if name not in among:
        raise ValueError(f"{where} names {name!r}, but {what} has only {', '.join(among)}")


def _validated(model: type[Model], path: Path) -> Model:
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist: run this in the project's root") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    except ValidationError as error:
        raise SettingsError(_told(error, str(path))) from error


def options(cls: type[Options], values: Mapping[str, Any], where: str) -> Options:
    """The frozen dataclass of the library that `values` describe, types checked.

    Raises:
        SettingsError: an unknown option, a wrong type or value; `where` names the place.
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    unknown = set(values) - set(known)
    if unknown:
        raise SettingsError(
            f"{PARAMS}: {where} has no option {', '.join(sorted(unknown))}: choose from "
            f"{', '.join(known)}"
        )
    try:
        return TypeAdapter(cls).validate_python(dict(values))
    except ValidationError as error:
        raise SettingsError(_told(error, f"{PARAMS}: {where}")) from error


def _told(error: ValidationError, where: str) -> str:
    """One line for each mistake."""
    return "\n".join(
        ": ".join([where, *filter(None, [".".join(map(str, mistake["loc"]))]), mistake["msg"]])
        for mistake in error.errors()
    )
