"""params.yaml as validated, frozen values."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from difflib import get_close_matches
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
    validate_call,
)

from ianet.options import Cameras, NetworkOptions, read_types
from ianet.synthetic.sizes import check_sizes
from ianet.training.recipe import Recipe
from pipeline.config.yaml_files import Document, read_yaml

Options = TypeVar("Options")  # a dataclass
Returned = TypeVar("Returned")

PARAMS = Path("params.yaml")
# Of results/, beside a folder for each data set.
RESULT_FOLDERS = ("tables", "figures", "ranks", "searches")


MESSAGES = {
    **dict.fromkeys(
        ("model_type", "model_attributes_type", "dict_type"),
        "options are missing here: give lines of `name: value`",
    ),
    "missing": "this option is missing: give a value",
    "extra_forbidden": "no option has this name: correct or remove the name",
    "tuple_type": "this is no list: give lines of `- value`",
    "too_short": "the list is too short: {min_length} is the least number of its entries",
    "union_tag_not_found": "{discriminator} is missing: say what the file describes, such as "
    "`kind: table`",
    "union_tag_invalid": "{tag!r} is no {discriminator}: give one of {expected_tags}",
}
"""Type of pydantic's mistakes to our words for these, with names of pydantic's context."""


class SettingsError(ValueError):
    """A mistake in an input; the message says where, and what to do."""


class Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def refuse_other_types(value: Any) -> Any:
    """Return a value unless it is true, false or a text, of which pydantic makes numbers."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number: give a number")
    if isinstance(value, str):
        raise ValueError(f"{value!r} is a text: give a number, without quotes")
    return value


Integer = Annotated[int, BeforeValidator(refuse_other_types)]
Number = Annotated[float, BeforeValidator(refuse_other_types)]


def refuse_repetition(items: Sequence[Any]) -> Sequence[Any]:
    """Return a list unless an item stands there more than once, which is a slip."""
    texts = list(map(repr, items))
    repeated = dict.fromkeys(text for text in texts if texts.count(text) > 1)
    if repeated:
        raise ValueError(f"{', '.join(repeated)} stands there more than once")
    return items


Unique = AfterValidator(refuse_repetition)
"""Of a list, each item of which may stand there once."""


# Names become parts of keys, stage names, file names and command lines. A name holds no dot: dots
# separate the names of a key.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$")]


def is_name(text: str) -> bool:
    """Whether a text can be a `Name`."""
    try:
        _adapter(Name).validate_python(text)
    except ValidationError:
        return False
    return True


Seed = Annotated[int, Field(ge=0, lt=2**63), BeforeValidator(refuse_other_types)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1), Unique]


class SyntheticSizes(Value):
    """Sizes and seed of a set that `ianet.synthetic.archive.write` draws."""

    train_identities: Integer
    test_identities: Integer
    distractors: Integer
    junk: Integer
    seed: Integer

    @model_validator(mode="after")
    def _check_sizes(self) -> SyntheticSizes:
        check_sizes(self.model_dump())
        return self


class Dataset(Value):
    """A data set: a reader and a source, and what differs from the usual.

    Attributes:
        reader: of `ianet.datasets`.
        source: folder or archive.
        synthetic: of a set that the pipeline draws into `source`; None for all others.
        options: of the reader.
        published: whether the counts must be the published ones.
        cameras: "respect": a match is from another camera than the query. "ignore": from any.
        terms: under which the images are to be had; models carry them.
        held_out: number of training identities that `hold_out: true` of a recipe leaves out.
        recipes: role to recipe: a table asks for a role, "plain" or "strong".
        seeds: of the runs.
        networks: that are run.
        without: networks that are not run all the same.
    """

    reader: Name
    source: Path
    synthetic: SyntheticSizes | None = None
    options: dict[str, Any] = {}
    published: bool = False
    cameras: Cameras = "respect"
    terms: str = "Unknown. Ask whoever made the data set."
    held_out: Integer = Field(0, ge=0)
    recipes: dict[Name, Name] = {"plain": "paper"}
    seeds: Seeds = (0,)
    networks: Annotated[
        Annotated[Literal["all"], Tag("all")] | Annotated[tuple[Name, ...], Unique, Tag("list")],
        Discriminator(lambda value: "all" if isinstance(value, str) else "list"),
    ] = "all"
    without: Annotated[tuple[Name, ...], Unique] = ()

    @field_validator("source", mode="before")
    @classmethod
    def _check_source(cls, source: Any) -> Any:
        if source == "":  # which pathlib takes for the working directory
            raise ValueError("the path is empty: name a folder or an archive")
        return source

    @field_validator("recipes")
    @classmethod
    def _check_plain(cls, recipes: dict[str, str]) -> dict[str, str]:
        if "plain" not in recipes:
            raise ValueError("the recipe that is plain on this data set must be named")
        return recipes

    def includes(self, network: str) -> bool:
        """Whether the data set asks for runs of that network."""
        is_listed = self.networks == "all" or network in self.networks
        return is_listed and network not in self.without


class RecipeSettings(Value):
    """How networks are trained.

    Attributes:
        hold_out: whether the held-out identities are scored, in place of test.
        minutes: of a run on one core, start-up included. They give the estimate at a start.
        network: options that every network of the recipe starts from.
        training: the fields of `ianet.training.recipe.Recipe`.
    """

    hold_out: bool = False
    minutes: Number | None = Field(None, gt=0)
    network: dict[str, Any] = {}
    training: dict[str, Any]

    @property
    def size(self) -> str:
        return f"{self.training['height']}x{self.training['width']}"

    @model_validator(mode="after")
    def _check_size(self) -> RecipeSettings:
        for side in ("height", "width"):
            if type(self.training.get(side)) is not int:  # true is an int, too
                raise ValueError(f"training.{side} must be given, in pixels")
        return self


class Cluster(Value):
    """A Ray cluster, and where its nodes find data, see `pipeline.cluster`."""

    address: str | None = None
    storage: str | None = None


class Settings(Value):
    at_hand: Annotated[tuple[Name, ...], Field(min_length=1), Unique]
    workers: Literal["auto"] | Annotated[Integer, Field(ge=1)]
    checkpoint_minutes: Number = Field(5, ge=0)
    cluster: Cluster = Cluster()
    datasets: dict[Name, Dataset]
    recipes: dict[Name, RecipeSettings]
    networks: dict[Name, dict[str, Any]]

    @field_validator("workers", mode="wrap")
    @classmethod
    def _check_workers(cls, workers: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(workers)
        except ValidationError:
            raise ValueError("give auto, or a whole number from 1") from None

    @model_validator(mode="after")
    def _check_names(self) -> Settings:
        for name in RESULT_FOLDERS:
            if name in self.datasets:
                raise ValueError(f"datasets names {name!r}, which is a folder of results/")
        for name in self.at_hand:
            check_known(name, self.datasets, "at_hand", "datasets")
        for name, dataset in self.datasets.items():
            place = Path(f"data/{name}.zip")
            if dataset.synthetic is not None and dataset.source != place:
                raise ValueError(
                    f"datasets.{name}.source is {str(dataset.source)!r}, but the pipeline draws "
                    f"the set into {place}: name that, or delete `synthetic` for a set of your own"
                )
            for role, recipe in dataset.recipes.items():
                check_known(recipe, self.recipes, f"datasets.{name}.recipes.{role}", "recipes")
            names = () if dataset.networks == "all" else dataset.networks
            for option, networks in (("networks", names), ("without", dataset.without)):
                for network in networks:
                    check_known(network, self.networks, f"datasets.{name}.{option}", "networks")
        return self


def load() -> Settings:
    """params.yaml of the working directory.

    Raises:
        SettingsError: missing, unreadable or wrong; one line for each mistake.
    """
    settings: Settings = read_validated(Settings, PARAMS)
    return settings


def check_known(name: str, names: Collection[str], where: str, section: str) -> None:
    """Refuse a name that is not among those of a section.

    Raises:
        SettingsError: the message lists the section's names, and repeats the most similar.
    """
    if name not in names:
        similar = "".join(f". Did you mean {each}?" for each in get_close_matches(name, names, n=1))
        raise SettingsError(
            f"{where} names {name!r}, but {section} has only {', '.join(names)}{similar}"
        )


def read_validated(model: Any, path: Path) -> Any:
    """The content of a YAML file, as a model or a union of models.

    Raises:
        SettingsError: missing, unreadable or wrong; one line for each mistake.
    """
    try:
        document = read_yaml(path)
    except FileNotFoundError:
        raise SettingsError(f"{path} does not exist: run this in the project's root") from None
    except OSError as error:  # such as a link to itself
        raise SettingsError(f"{path} cannot be read ({error.strerror}): write it anew") from error
    except ValueError as error:
        raise SettingsError(str(error)) from error
    try:
        return _adapter(model).validate_python(document.content)
    except ValidationError as error:
        raise SettingsError(_describe(error, str(path), document)) from error


def build(cls: type[Options], values: Mapping[str, Any], where: str) -> Options:
    """A frozen dataclass of the library, which checks its values.

    Values are converted as far as they can be, such as the text "1e-4", which YAML takes for no
    number, to a number.

    Args:
        cls: such as `Recipe`.
        values: by the names of its fields.
        where: the values stand, for the messages.

    Raises:
        SettingsError: an unknown option, a missing one, a wrong type or a wrong value.
    """
    options = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    unknown = set(values) - set(options)
    if unknown:
        raise SettingsError(
            f"{PARAMS}: {where} has no option {', '.join(sorted(unknown))}: choose from "
            f"{', '.join(options)}"
        )
    missing = [
        name
        for name, field in options.items()
        if name not in values and field.default is field.default_factory is MISSING
    ]
    if missing:
        raise SettingsError(f"{PARAMS}: {where} needs {', '.join(missing)}, without a default")
    hints = read_types(cls)
    try:
        return cls(**{name: _convert(value, hints[name]) for name, value in values.items()})
    except ValueError as error:
        raise SettingsError(f"{PARAMS}: {where}: {error}") from error


def _convert(value: Any, annotation: Any) -> Any:
    """A value as one of the type that is annotated, or the value itself if that cannot be.

    True and false stay as they are, also in a list: pydantic would make numbers of them.
    """
    items = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(item, bool) for item in items):
        return value
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError:
        return value


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    """What converts values to a type; making one takes a millisecond."""
    return TypeAdapter(annotation)


def build_recipe(name: str, settings: RecipeSettings) -> Recipe:
    """The library's recipe of an entry under `recipes`.

    Raises:
        SettingsError: a wrong option, see `build`.
    """
    return build(Recipe, settings.training, f"recipes.{name}.training")


def build_network(name: str, options: Mapping[str, Any], recipe: RecipeSettings) -> NetworkOptions:
    """The library's options of an entry under `networks`, on top of what its recipe starts from.

    In `weights`, {backbone} stands for the network's backbone. So networks with several backbones
    start from weights of their own.

    Raises:
        SettingsError: a wrong option, see `build`.
    """
    network = build(NetworkOptions, {**recipe.network, **options}, f"networks.{name}")
    return replace(network, weights=network.weights.replace("{backbone}", network.backbone))


def call(
    function: Callable[..., Returned], *arguments: Any, options: Mapping[str, Any], where: str
) -> Returned:
    """What a function returns, called with keyword arguments whose types are checked.

    Args:
        function: such as the `read` of a reader.
        arguments: its positional arguments.
        options: its keyword arguments.
        where: the options stand, for the messages.

    Raises:
        SettingsError: an option is unknown, missing or wrong.
        Exception: what the function raises.
    """
    parameters = [
        name
        for name, parameter in signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    try:
        return validate_call(function)(*arguments, **options)
    except ValidationError as error:
        if error.title != function.__qualname__:  # of a model that the function itself uses
            raise
        by_kind: dict[str, list[str]] = {}
        for mistake in error.errors():
            by_kind.setdefault(mistake["type"], []).append(str(mistake["loc"][-1]))
        if unknown := by_kind.get("unexpected_keyword_argument"):
            message = (
                f"{where} has no option {', '.join(sorted(unknown))}: choose from "
                f"{', '.join(parameters)}"
            )
        elif missing := by_kind.get("missing_keyword_only_argument"):
            message = (
                f"{where} needs {', '.join(missing)}, without a default: "
                f"{function.__module__} lists the choices"
            )
        else:
            message = _describe(error, where)
        raise SettingsError(message) from error


def _describe(error: ValidationError, where: str, document: Document | None = None) -> str:
    """One line for each mistake, with the number of the line in the document, if any.

    A mistake within a list costs the list an entry, which pydantic reports as a second
    mistake. The second mistake is left out.
    """
    mistakes = error.errors()
    parents = {mistake["loc"][:-1] for mistake in mistakes}
    lines = []
    for mistake in mistakes:
        if mistake["type"] == "too_short" and mistake["loc"] in parents:
            continue
        place = ".".join(map(str, mistake["loc"]))
        if place and document is not None:
            place += f" (line {document.find_line(mistake['loc'])})"
        words = MESSAGES.get(mistake["type"])
        message = (
            words.format_map(mistake.get("ctx", {}))
            if words
            else mistake["msg"].removeprefix("Value error, ")
        )
        lines.append(": ".join([where, *filter(None, [place]), message]))
    return "\n".join(lines)
