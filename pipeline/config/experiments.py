"""experiments/*.yaml as validated, frozen values: a file for each table, figure and search."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    Strict,
    Tag,
    model_validator,
)

from pipeline.config.settings import (
    Integer,
    Name,
    Number,
    Seed,
    Seeds,
    Settings,
    SettingsError,
    Unique,
    Value,
    check_known,
    is_name,
    read_validated,
)

EXPERIMENTS = Path("experiments")
SEARCH_PREFIX = "search_"  # of the files of searches
STAGES = (
    *("plan", "sources", "synthesize", "prepare", "pack", "train", "evaluate", "model", "report"),
    "search",
)
"""Stages of dvc.yaml that no table or figure may be named like."""

Metric = Literal["top-1", "top-5", "top-10", "mAP", "mINP", "entropy"]


class Experiment(Value):
    """What every table, figure and search has."""

    title: str
    caption: str


class Row(Value):
    """A line of a table.

    Attributes:
        label: what the line is called.
        network: of params.yaml; none for a rival of which only the paper's numbers are shown.
        recipe: "plain" or another name under `recipes` of a data set; a data set that lacks it
            has no run for the line.
        trained_on: the data set of its training, where it is not the one that is scored.
        against: the network that it is compared with; none leaves the comparison out.
        against_recipe: of that network, where its recipe is another.
        group: heading under which neighbouring lines stand together.
        paper: the paper's numbers by data set, in the order of the metrics, null where lost.
    """

    label: str
    network: Name | None = None
    recipe: Name = "plain"
    trained_on: Name | None = None
    against: Name | None = None
    against_recipe: Name | None = None
    group: str = ""
    paper: dict[Name, tuple[Number | None, ...]] = Field({})

    def references(self) -> list[tuple[str, str]]:
        """The names that must stand in params.yaml, each with its section there."""
        names = ((self.network, "networks"), (self.trained_on, "datasets"))
        return [(name, section) for name, section in names if name]


class ScoreTable(Experiment):
    """Scores of networks, a row for each.

    Attributes:
        seeds: of the runs, by data set, instead of those that the data set has.
    """

    metrics: Annotated[tuple[Metric, ...], Field(min_length=1), Unique]
    rows: tuple[Row, ...] = Field(min_length=1)
    seeds: dict[Name, Seeds] = Field({})

    @property
    def printed(self) -> list[str]:
        """The data sets for which the paper prints numbers here."""
        return list(dict.fromkeys(name for row in self.rows for name in row.paper))

    @model_validator(mode="after")
    def _check_rows(self) -> ScoreTable:
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
            if row.against_recipe and not row.against:
                raise ValueError(f"row {row.label!r} has an against_recipe: name a network against")
            recipe = row.against_recipe or row.recipe
            if row.against and (row.network, row.recipe) == (row.against, recipe):
                raise ValueError(
                    f"row {row.label!r} is compared with itself: name another network or recipe "
                    "against"
                )
            if row.against and (row.against, recipe, row.trained_on) not in lines:
                raise ValueError(
                    f"row {row.label!r} is compared with {row.against!r}, which no row of the "
                    f"table is, with the recipe {recipe!r} and the same training set"
                )
        return self


class Table(ScoreTable):
    """Ours beside the paper's."""

    kind: Literal["table"]


class Curve(ScoreTable):
    """Scores over a number, such as Figure 7's sigma_1.

    Attributes:
        axis: what the number is.
        at: the number of each row. A row without a number becomes a level line.
    """

    kind: Literal["curve"]
    axis: str
    at: tuple[Number | None, ...]

    @model_validator(mode="after")
    def _check_axis(self) -> Curve:
        if len(self.at) != len(self.rows):
            raise ValueError(f"at has {len(self.at)} numbers for {len(self.rows)} rows")
        return self


class BlockTable(ScoreTable):
    """What the inserted blocks of networks do, a line for each block, beside the scores."""

    kind: Literal["blocks"]


class CostRow(Value):
    """A network, and the giga multiply-adds that the paper prints for it."""

    label: str
    network: Name
    paper: Number | None = None


class CostTable(Experiment):
    """What networks cost.

    Attributes:
        recipe: whose backbone and size parameters and multiply-adds are counted for.
    """

    kind: Literal["cost"]
    recipe: Name
    rows: tuple[CostRow, ...] = Field(min_length=1)


class RankedLists(Experiment):
    """Ranked lists of networks and of another, and the distances of pairs, on drawn people.

    Attributes:
        networks: each with lists of its own.
        against: the network without what is shown.
        queries: number of those whose average precision rises most, and of those where it falls.
        neighbours: of each query.
    """

    kind: Literal["ranks"]
    networks: list[Name] = Field(min_length=1)
    against: Name
    queries: Integer = Field(ge=1, le=20)
    neighbours: Integer = Field(ge=1, le=50)

    @model_validator(mode="after")
    def _check_networks(self) -> RankedLists:
        names = [*self.networks, self.against]
        if len(set(names)) < len(names):
            raise ValueError(f"networks and against name a network twice: {', '.join(names)}")
        return self


class SyntheticPerson(Value):
    """The label of an image, and the person in it, see `ianet.synthetic.portrait.portrait`."""

    label: str
    person: Integer = Field(ge=0)
    facing: Number
    stride: Number
    phase: Number
    stature: Number = Field(gt=0)
    camera: Integer


class Photo(Value):
    """An image of a data set: its label, its file's name, and points in it.

    A point is given by name, as fractions of the image's height and width.
    """

    label: str
    image: str
    points: dict[str, tuple[Number, Number]]


class Variant(Value):
    """A row of relation maps of the same points.

    Attributes:
        options: of `ianet.blocks.ia.SpatialIA`, in place of those of the trained block.
        logarithmic: whether colours follow the logarithm.
    """

    options: dict[str, Any] = Field({})
    logarithmic: bool = False


class RelationFigure(Experiment):
    """People, and where a network gathers features from, for points of their bodies.

    Attributes:
        network, stage: after which stage of which network the block stands.
        size: height and width of the images, in pixels.
        people: synthetic ones, a row each.
        photographs: by data set, for a run on real people.
        points: whose receptive fields are shown, by name.
        maps: title to options of `SpatialIA`: a receptive field of each point.
        variants: label to what distinguishes one row of these maps from the next.
        channels: of CIA's output, counted from 1.
    """

    kind: Literal["relations"]
    network: Name
    stage: str
    size: tuple[
        Annotated[Integer, Field(ge=32, le=2048)], Annotated[Integer, Field(ge=16, le=2048)]
    ]
    people: tuple[SyntheticPerson, ...] = Field(min_length=1)
    photographs: dict[Name, tuple[Photo, ...]] = Field({})
    points: Annotated[tuple[str, ...], Field(min_length=1), Unique]
    maps: dict[str, dict[str, Any]] = Field(min_length=1)
    variants: dict[str, Variant] = Field(min_length=1)
    channels: Annotated[tuple[Annotated[Integer, Field(ge=1)], ...], Unique] = ()


Choice = Annotated[
    Annotated[bool, Strict()] | Annotated[int, Strict()] | float | Any,
    Field(union_mode="left_to_right"),
]
"""A value of an option; the text "1e-4" is a number, as in a recipe."""


class Values(Value):
    """One of these."""

    values: Annotated[tuple[Choice, ...], Field(min_length=1), Unique]

    @property
    def count(self) -> int:
        """Number of choices."""
        return len(self.values)


class Subsets(Value):
    """One of the subsets of these but for the empty one."""

    subsets: Annotated[tuple[Any, ...], Field(min_length=1), Unique]

    @property
    def count(self) -> int:
        """Number of choices."""
        return 2 ** len(self.subsets) - 1


class Range(Value):
    """Numbers between two ends."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for name in type(self).model_fields:
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} is [{low}, {high}]: the first must be the smaller")
        return self


Whole = Annotated[Integer, Field(gt=-(2**53), lt=2**53)]  # as far as a float is exact


class Integers(Range):
    """A whole number from the first to the last."""

    integers: tuple[Whole, Whole]


class Uniform(Range):
    """A number between two, each as likely."""

    uniform: tuple[Number, Number]


class LogUniform(Range):
    """A number between two above 0, its logarithm as likely everywhere."""

    log_uniform: tuple[Annotated[Number, Field(gt=0)], Annotated[Number, Field(gt=0)]]


class Twice(Value):
    """Twice the value of another option that is searched."""

    twice: str


def _find_kind(choices: Any) -> str | None:
    """The first option of choices, as each kind of choices has a single one."""
    options = type(choices).model_fields if isinstance(choices, Value) else choices
    return next(map(str, options), None) if isinstance(options, dict) else None


Choices = Annotated[
    Annotated[Values, Tag("values")]
    | Annotated[Subsets, Tag("subsets")]
    | Annotated[Integers, Tag("integers")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[Twice, Tag("twice")],
    Discriminator(
        _find_kind,
        custom_error_type="choices",
        custom_error_message=(
            "give one of values, subsets, integers, uniform, log_uniform, twice, and its value"
        ),
    ),
]
COUNTABLE = (Values, Subsets)
TRIALS = 100_000  # of a search, each a training


class Search(Experiment):
    """A search for the best values of options, scored on held-out identities.

    Attributes:
        dataset, network, recipe, seed: the run whose options are searched.
        space: what each option may be. An option is named by its place in a network's or a
            recipe's entry of params.yaml, `network.after.stage3.sigma.0` or `training.lr`.
        algorithm: "grid" tries every combination, "random" draws combinations, "optuna" draws
            them by the scores of earlier trials (tree-structured Parzen estimator).
        trials: how many, for all but "grid".
        scheduler: "asha" stops trials early that fall behind the others, "none" stops none.
        maximise: the score.
    """

    kind: Literal["search"]
    dataset: Name
    network: Name
    recipe: Name
    seed: Seed = 0
    space: dict[str, Choices] = Field(min_length=1)
    algorithm: Literal["grid", "random", "optuna"]
    trials: Integer | None = Field(None, ge=1, le=TRIALS)
    scheduler: Literal["none", "asha"] = "none"
    maximise: Literal["mAP", "top-1"] = "mAP"

    @model_validator(mode="after")
    def _check_space(self) -> Search:
        for name, choices in self.space.items():
            if not name.startswith(("network.", "training.")):
                raise ValueError(f"space: {name!r} must start with network. or training.")
            if name in ("training.height", "training.width", "training.epochs"):
                raise ValueError(f"space: all trials have the recipe's size and epochs, not {name}")
            if isinstance(choices, Twice) and isinstance(
                self.space.get(choices.twice, choices), Twice
            ):
                raise ValueError(f"space: {name} is twice {choices.twice!r}, which is not searched")
            if self.algorithm == "grid" and not isinstance(choices, (*COUNTABLE, Twice)):
                raise ValueError(f"space: a grid cannot count {name}: give its values")
        counts = [
            options.count for options in self.space.values() if isinstance(options, COUNTABLE)
        ]
        if prod(counts if self.algorithm == "grid" else [max([1, *counts])]) > TRIALS:
            raise ValueError(f"space: more than {TRIALS:,} choices cannot be tried: name fewer")
        if (self.algorithm == "grid") == (self.trials is not None):
            raise ValueError("trials must be given, but not with a grid, which tries all")
        return self


AnyExperiment = Annotated[
    Table | Curve | BlockTable | CostTable | RelationFigure | RankedLists | Search,
    Field(discriminator="kind"),
]


def read_experiments(settings: Settings) -> dict[str, Experiment]:
    """experiments/*.yaml by name: the paper's tables, then others, figures, searches.

    Raises:
        SettingsError: no file, a mistake in one, a name that params.yaml lacks, or a file whose
            name no stage of dvc.yaml can have or whose suffix is another of YAML.
    """
    # Hidden files are of editors and of macOS.
    files = [path for path in sorted(EXPERIMENTS.glob("*")) if not path.name.startswith(".")]
    paths = [path for path in files if path.suffix.lower() in (".yaml", ".yml")]
    if not paths:
        raise SettingsError(f"{EXPERIMENTS}/ holds no *.yaml: run this in the project's root")
    for path in paths:
        if path.suffix != ".yaml":
            raise SettingsError(f"{path} would be passed over: name it {path.stem}.yaml")
        _check_file_name(path)
    contents: dict[str, Experiment] = {
        path.stem: read_validated(AnyExperiment, path) for path in paths
    }
    for name, experiment in contents.items():
        try:
            check_names(experiment, settings)
        except ValueError as error:
            raise SettingsError(f"{EXPERIMENTS / name}.yaml: {error}") from error
        if isinstance(experiment, Search) != name.startswith(SEARCH_PREFIX):
            raise SettingsError(
                f"{EXPERIMENTS / name}.yaml: files of searches, and no others, are called "
                f"{SEARCH_PREFIX}<name>.yaml: rename the file"
            )
    order: tuple[tuple[type[Experiment], ...], ...] = (
        *((Table,), (BlockTable,), (CostTable,)),
        *((Curve, RelationFigure), (RankedLists,), (Search,)),
    )

    def place(item: tuple[str, Experiment]) -> tuple[int, bool]:
        _, experiment = item
        kind = next(rank for rank, kinds in enumerate(order) if isinstance(experiment, kinds))
        return kind, isinstance(experiment, Table) and not experiment.printed

    return dict(sorted(contents.items(), key=place))


def _check_file_name(path: Path) -> None:
    """The name of a file becomes the name of a stage and a word of its command."""
    if not is_name(path.stem):
        raise SettingsError(
            f"{str(path)!r} cannot name a stage: rename the file with letters, digits, - and _, "
            "of which the first is no -"
        )
    if path.stem in STAGES:
        raise SettingsError(
            f"{path} is named like the stage {path.stem!r} of dvc.yaml: give the file another name"
        )


def check_names(experiment: Experiment, settings: Settings) -> None:
    """Refuse an experiment that names what params.yaml lacks.

    Raises:
        SettingsError: the message lists the names that are there.
    """
    if isinstance(experiment, Search):
        check_known(experiment.dataset, settings.datasets, "dataset", "datasets")
        check_known(experiment.network, settings.networks, "network", "networks")
        check_known(experiment.recipe, settings.recipes, "recipe", "recipes")
    elif isinstance(experiment, RelationFigure):
        check_known(experiment.network, settings.networks, "network", "networks")
    elif isinstance(experiment, RankedLists):
        for network in experiment.networks:
            check_known(network, settings.networks, "networks", "networks")
        check_known(experiment.against, settings.networks, "against", "networks")
    elif isinstance(experiment, CostTable):
        check_known(experiment.recipe, settings.recipes, "recipe", "recipes")
        for row in experiment.rows:
            check_known(row.network, settings.networks, f"row {row.label!r}", "networks")
    elif isinstance(experiment, ScoreTable):
        roles = {role for dataset in settings.datasets.values() for role in dataset.recipes}
        for dataset in experiment.seeds:
            check_known(dataset, settings.datasets, "seeds", "datasets")
        for line in experiment.rows:
            where = f"row {line.label!r}"
            for dataset in line.paper:
                check_known(dataset, settings.datasets, f"{where} (paper)", "datasets")
            for name, section in line.references():
                check_known(name, getattr(settings, section), where, section)
            check_known(line.recipe, sorted(roles), where, "recipes of the data sets")
