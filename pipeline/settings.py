"""params.yaml and experiments/*.yaml as validated, frozen values.

Nothing here imports torch: planning and tables need none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    create_model,
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
    options: dict[str, Any]  # of its reader
    published: bool
    held_out: int = Field(ge=0)
    # What a table asks for ("plain", "strong") to the recipe that is it on this data set.
    recipes: dict[Name, Name]
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    networks: Literal["all"] | tuple[Name, ...] = "all"


class Synthetic(_Value):
    train_identities: int
    test_identities: int
    distractors: int
    junk: int
    seed: int


class RecipeSettings(_Value):
    """`training` holds the fields of `ianet.training.Recipe`."""

    hold_out: bool = False
    # What a run takes on one core, start-up included, to say at the start how long all take.
    minutes: float | None = Field(None, gt=0)
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
            for role, recipe in dataset.recipes.items():
                _known(recipe, self.recipes, f"datasets.{name}.recipes.{role}", "recipes")
            if dataset.networks != "all":
                for network in dataset.networks:
                    _known(network, self.networks, f"datasets.{name}.networks", "networks")
        return self


class Row(_Value):
    """A line of a table.

    Attributes:
        label: what the line is called.
        network: of params.yaml; none for a rival of which only the paper's numbers are shown.
        recipe: "plain" or another name under `recipes` of a data set; a data set that lacks it
            has no run for the line.
        trained_on: the data set of its training, where it is not the one that is scored.
        against: the network that it is compared with; none leaves the comparison out.
        group: heading under which neighbouring lines stand together.
        paper: the paper's numbers by data set, in the order of the metrics, null where lost.
    """

    label: str
    network: Name | None = None
    recipe: Name = "plain"
    trained_on: Name | None = None
    against: Name | None = None
    group: str = ""
    paper: dict[Name, tuple[float | None, ...]] = {}


Metric = Literal["top-1", "top-5", "top-10", "mAP", "mINP", "entropy"]


class Experiment(_Value):
    title: str
    caption: str
    metrics: tuple[Metric, ...] = Field(min_length=1)
    rows: tuple[Row, ...] = Field(min_length=1)

    @property
    def printed(self) -> list[str]:
        """The data sets for which the paper prints numbers in this table."""
        return list(dict.fromkeys(name for row in self.rows for name in row.paper))

    @model_validator(mode="after")
    def _is_consistent(self) -> Experiment:
        lines = {(row.network, row.recipe, row.trained_on) for row in self.rows}
        labels = [(row.group, row.label) for row in self.rows]
        for row in self.rows:
            if labels.count((row.group, row.label)) > 1:
                raise ValueError(f"two rows are called {row.label!r}")
            for dataset, numbers in row.paper.items():
                if len(numbers) != len(self.metrics):
                    raise ValueError(
                        f"row {row.label!r} has {len(numbers)} numbers of the paper for "
                        f"{dataset} and {len(self.metrics)} metrics"
                    )
            if row.against and (row.against, row.recipe, row.trained_on) not in lines:
                raise ValueError(
                    f"row {row.label!r} is compared with {row.against!r}, which no row of the "
                    "table is, with the same recipe and training set"
                )
        return self


def load() -> Settings:
    """params.yaml of the working directory.

    Raises:
        SettingsError: missing, unreadable or wrong; one line for each mistake.
    """
    return _validated(Settings, PARAMS)


def experiments(settings: Settings) -> dict[str, Experiment]:
    """experiments/*.yaml by name, in the order of their names.

    Raises:
        SettingsError: none there, one of them wrong, or a network that params.yaml lacks.
    """
    paths = sorted(EXPERIMENTS.glob("*.yaml"))
    if not paths:
        raise SettingsError(f"{EXPERIMENTS}/ holds no *.yaml: run this in the project's root")
    found = {path.stem: _validated(Experiment, path) for path in paths}
    for name, experiment in found.items():
        for row in experiment.rows:
            where = f"row {row.label!r}"
            try:
                if row.network:
                    _known(row.network, settings.networks, where, "networks")
                roles = {role: None for one in settings.datasets.values() for role in one.recipes}
                _known(row.recipe, roles, where, "recipes of the data sets")
                if row.trained_on:
                    _known(row.trained_on, settings.datasets, where, "datasets")
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


def keywords(function: Callable[..., Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The keyword arguments of a function that `values` describe, types checked.

    Raises:
        SettingsError: an unknown, a missing or a wrong one; `where` names the place.
    """
    hints = get_type_hints(function)
    known = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    unknown = set(values) - set(known)
    if unknown:
        raise SettingsError(
            f"{where} has no option {', '.join(sorted(unknown))}: choose from {', '.join(known)}"
        )
    missing = [
        name for name, (_, default) in known.items() if default is ... and name not in values
    ]
    if missing:
        raise SettingsError(
            f"{where} needs {', '.join(missing)}, without a default: {function.__module__} tells "
            "the choices"
        )
    model = create_model("Keywords", **known)  # type: ignore[call-overload]
    try:
        return dict(model.model_validate(values))
    except ValidationError as error:
        raise SettingsError(_told(error, where)) from error


def _told(error: ValidationError, where: str) -> str:
    """One line for each mistake."""
    return "\n".join(
        ": ".join([where, *filter(None, [".".join(map(str, mistake["loc"]))]), mistake["msg"]])
        for mistake in error.errors()
    )
