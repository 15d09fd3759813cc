"""experiments/*.yaml: one file a table, figure or search, as validated, frozen values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.settings import Name, Settings, SettingsError, Value, check_known, validated

EXPERIMENTS = Path("experiments")

Metric = Literal["top-1", "top-5", "top-10", "mAP", "mINP", "entropy"]


class Sheet(Value):
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
        group: heading under which neighbouring lines stand together.
        paper: the paper's numbers by data set, in the order of the metrics, null where lost.
    """

    label: str
    network: Name | None = None
    recipe: Name = "plain"
    trained_on: Name | None = None
    against: Name | None = None
    group: str = ""
    paper: dict[Name, tuple[float | None, ...]] = Field({})

    def names(self) -> dict[str, tuple[str, str]]:
        """What it names, each with the section of params.yaml that should have it."""
        named = {"network": (self.network, "networks"), "trained_on": (self.trained_on, "datasets")}
        return {where: (name, what) for where, (name, what) in named.items() if name}


class Scored(Sheet):
    """A sheet of scores, with a row for each network."""

    metrics: tuple[Metric, ...] = Field(min_length=1)
    rows: tuple[Row, ...] = Field(min_length=1)

    @property
    def printed(self) -> list[str]:
        """The data sets for which the paper prints numbers here."""
        return list(dict.fromkeys(name for row in self.rows for name in row.paper))

    @model_validator(mode="after")
    def _is_consistent(self) -> Scored:
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


class Table(Scored):
    """Ours beside the paper's."""

    kind: Literal["table"]


class Curve(Scored):
    """Scores over a number, such as Figure 7's sigma_1.

    Attributes:
        axis: what the number is.
        at: the number of each row; a row that has none is drawn as a level line.
    """

    kind: Literal["curve"]
    axis: str
    at: tuple[float | None, ...]

    @model_validator(mode="after")
    def _has_a_number_a_row(self) -> Curve:
        if len(self.at) != len(self.rows):
            raise ValueError(f"at has {len(self.at)} numbers for {len(self.rows)} rows")
        return self


class CostRow(Value):
    """A network, and the giga multiply-adds that the paper prints for it."""

    label: str
    network: Name
    paper: float | None = None


class Costs(Sheet):
    """What networks cost.

    Attributes:
        recipe: whose backbone and size parameters and multiply-adds are counted for.
    """

    kind: Literal["cost"]
    recipe: Name
    rows: tuple[CostRow, ...] = Field(min_length=1)


class Portrait(Value):
    """The label of an image, and the person in it, see `ianet.datasets.synthetic.portrait`."""

    label: str
    person: int = Field(ge=0)
    facing: float
    stride: float
    phase: float
    stature: float = Field(gt=0)
    camera: int


class Photograph(Value):
    """An image of a data set: its label, its file's name, and points in it.

    A point is given by name, as fractions of the image's height and width.
    """

    label: str
    image: str
    points: dict[str, tuple[float, float]]


class Line(Value):
    """A line of maps, and whether their colours are logarithmic.

    `options` are of `ianet.blocks.ia.SpatialIA`, in place of the trained block's own.
    """

    options: dict[str, Any] = Field({})
    logarithmic: bool = False


class Portraits(Sheet):
    """People, and what a network sees in them.

    Attributes:
        network, stage: after which stage of which network the block stands.
        size: height and width to which images are drawn, in pixels.
        people: synthetic ones, a row each.
        photographs: by data set, for a run on real people.
        points: whose receptive fields are shown, by name.
        maps: title to options of `SpatialIA`: a receptive field of each point.
        lines: label to what distinguishes one line of these maps from the next.
        channels: of CIA's output, counted from 1.
    """

    kind: Literal["portraits"]
    network: Name
    stage: str
    size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=16)]]
    people: tuple[Portrait, ...] = Field(min_length=1)
    photographs: dict[Name, tuple[Photograph, ...]] = Field({})
    points: tuple[str, ...] = Field(min_length=1)
    maps: dict[str, dict[str, Any]] = Field(min_length=1)
    lines: dict[str, Line] = Field(min_length=1)
    channels: tuple[Annotated[int, Field(ge=1)], ...] = ()


class Values(Value):
    """One of these."""

    values: tuple[Any, ...] = Field(min_length=1)


class Subsets(Value):
    """One of the subsets of these but for the empty one."""

    subsets: tuple[Any, ...] = Field(min_length=1)


class Integers(Value):
    """A whole number from the first to the last."""

    integers: tuple[int, int]


class Uniform(Value):
    """A number between two, each as likely."""

    uniform: tuple[float, float]


class LogUniform(Value):
    """A number between two above 0, its logarithm as likely everywhere."""

    log_uniform: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Twice(Value):
    """Twice the value of another option that is searched."""

    twice: str


Choices = Values | Subsets | Integers | Uniform | LogUniform | Twice
COUNTABLE = (Values, Subsets)


class Search(Sheet):
    """A search for the best values of options, scored on held-out identities.

    Attributes:
        dataset, network, recipe, seed: the run whose options are searched.
        space: what each option may be. An option is named by its place in a network's or a
            recipe's entry of params.yaml, `network.after.stage3.sigma.0` or `training.lr`.
        algorithm: "grid" tries every combination, "random" draws them, "optuna" draws them by
            what the earlier ones gave (tree-structured Parzen estimator).
        trials: how many, for all but "grid".
        scheduler: "asha" stops trials early that fall behind the others, "none" stops none.
        maximise: the score.
    """

    kind: Literal["search"]
    dataset: Name
    network: Name
    recipe: Name
    seed: int = Field(0, ge=0)
    space: dict[str, Choices] = Field(min_length=1)
    algorithm: Literal["grid", "random", "optuna"]
    trials: int | None = Field(None, ge=1)
    scheduler: Literal["none", "asha"] = "none"
    maximise: Literal["mAP", "top-1"] = "mAP"

    @model_validator(mode="after")
    def _is_a_space(self) -> Search:
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
        if (self.algorithm == "grid") == (self.trials is not None):
            raise ValueError("trials must be given, but not with a grid, which tries all")
        return self


Experiment = Annotated[Table | Curve | Costs | Portraits | Search, Field(discriminator="kind")]


def experiments(settings: Settings) -> dict[str, Sheet]:
    """experiments/*.yaml by name: the paper's tables, then others, figures, searches.

    Raises:
        SettingsError: none there, one of them wrong, or a name that params.yaml lacks.
    """
    paths = sorted(EXPERIMENTS.glob("*.yaml"))
    if not paths:
        raise SettingsError(f"{EXPERIMENTS}/ holds no *.yaml: run this in the project's root")
    found: dict[str, Sheet] = {path.stem: validated(Experiment, path) for path in paths}
    for name, sheet in found.items():
        try:
            _check_names(sheet, settings)
        except ValueError as error:
            raise SettingsError(f"{EXPERIMENTS / name}.yaml: {error}") from error
    order = (Table, Costs, Curve, Portraits, Search)

    def place(item: tuple[str, Sheet]) -> tuple[int, bool]:
        _, sheet = item
        return order.index(type(sheet)), isinstance(sheet, Scored) and not sheet.printed

    return dict(sorted(found.items(), key=place))


def _check_names(sheet: Sheet, settings: Settings) -> None:
    if isinstance(sheet, Search):
        check_known(sheet.dataset, settings.datasets, "dataset", "datasets")
        check_known(sheet.network, settings.networks, "network", "networks")
        check_known(sheet.recipe, settings.recipes, "recipe", "recipes")
    elif isinstance(sheet, Portraits):
        check_known(sheet.network, settings.networks, "network", "networks")
    elif isinstance(sheet, Costs):
        check_known(sheet.recipe, settings.recipes, "recipe", "recipes")
        for line in sheet.rows:
            check_known(line.network, settings.networks, f"row {line.label!r}", "networks")
    elif isinstance(sheet, Scored):
        roles = {role for dataset in settings.datasets.values() for role in dataset.recipes}
        for row in sheet.rows:
            where = f"row {row.label!r}"
            for name, what in row.names().values():
                check_known(name, getattr(settings, what), where, what)
            check_known(row.recipe, sorted(roles), where, "recipes of the data sets")
