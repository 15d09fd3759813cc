"""params.yaml as validated, frozen values.

Nothing here imports torch: planning and tables need none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    field_validator,
    model_validator,
)

Options = TypeVar("Options")  # a dataclass

PARAMS = Path("params.yaml")


class SettingsError(ValueError):
    """An input of the user's that must be mended; the message says where and how."""


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# Names become parts of stage names, file names and command lines.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]


class Dataset(Value):
    reader: Name
    source: Path
    options: dict[str, Any]  # of its reader
    published: bool
    held_out: int = Field(ge=0)
    # What a table asks for ("plain", "strong") to the recipe that is it on this data set.
    recipes: dict[Name, Name]
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    networks: Literal["all"] | tuple[Name, ...] = "all"

    @field_validator("recipes")
    @classmethod
    def _has_plain(cls, recipes: dict[str, str]) -> dict[str, str]:
        if "plain" not in recipes:
            raise ValueError("the recipe that is plain on this data set must be named")
        return recipes

    def runs(self, network: str) -> bool:
        """Whether that network is to be run on it."""
        return self.networks == "all" or network in self.networks


class Synthetic(Value):
    train_identities: int
    test_identities: int
    distractors: int
    junk: int
    seed: int


class RecipeSettings(Value):
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


class Cluster(Value):
    """A Ray cluster, and where its nodes find data: see `pipeline.storage`."""

    address: str | None = None
    storage: str | None = None


class Settings(Value):
    at_hand: tuple[Name, ...] = Field(min_length=1)
    workers: Literal["auto"] | Annotated[int, Field(ge=1)]
    cluster: Cluster = Cluster()
    datasets: dict[Name, Dataset]
    synthetic: Synthetic
    recipes: dict[Name, RecipeSettings]
    networks: dict[Name, dict[str, Any]]

    @model_validator(mode="after")
    def _names_exist(self) -> Settings:
        for name in self.at_hand:
            check_known(name, self.datasets, "at_hand", "datasets")
        for name, dataset in self.datasets.items():
            for role, recipe in dataset.recipes.items():
                check_known(recipe, self.recipes, f"datasets.{name}.recipes.{role}", "recipes")
            if dataset.networks != "all":
                for network in dataset.networks:
                    check_known(network, self.networks, f"datasets.{name}.networks", "networks")
        return self


def load() -> Settings:
    """params.yaml of the working directory.

    Raises:
        SettingsError: missing, unreadable or wrong; one line for each mistake.
    """
    settings: Settings = validated(Settings, PARAMS)
    return settings


def check_known(name: str, among: Iterable[str], where: str, what: str) -> None:
    if name not in among:
        raise ValueError(f"{where} names {name!r}, but {what} has only {', '.join(among)}")


def validated(model: Any, path: Path) -> Any:
    """The content of a YAML file, as a model or a union of models.

    Raises:
        SettingsError: missing, unreadable or wrong; one line for each mistake.
    """
    try:
        return TypeAdapter(model).validate_python(yaml.safe_load(path.read_text()))
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
