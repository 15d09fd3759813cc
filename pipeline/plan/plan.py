"""Which runs the tables and figures need of the data sets at hand, each run once.

Of data that are not at hand the tables show what lies in results/, such as the results of another
machine. `pipeline.import_results` brings these in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from importlib.util import find_spec
from typing import Any, TypeVar

from ianet.options import STAGES, NetworkOptions, refuse_unknown
from pipeline.config.experiments import (
    EXPERIMENTS,
    SEARCH_PREFIX,
    Experiment,
    RankedLists,
    RelationFigure,
    Row,
    ScoreTable,
    Search,
    read_experiments,
)
from pipeline.config.settings import (
    PARAMS,
    Settings,
    SettingsError,
    build,
    build_network,
    build_recipe,
    load,
)
from pipeline.plan.runs import MODELS, RESULTS, Evaluation, Run, find_start, parse_run
from pipeline.search import space
from pipeline.training.configuration import configure_trial

Kind = TypeVar("Kind", bound=Experiment)


class Plan:
    """The experiments that have something to show, and the evaluations that each needs.

    Attributes:
        settings: of params.yaml.
        experiments: tables and figures by name. An experiment without a number to show is left
            out, such as a table across domains with one data set at hand.
        searches: by name, those on data sets at hand.
    """

    def __init__(self, settings: Settings, files: Mapping[str, Experiment]) -> None:
        """`files`: the content of experiments/, by the names of the files."""
        self.settings = settings
        self._weights: dict[tuple[str, str], str] = {}  # of a network by a recipe
        self._files = files
        # Data that this project draws can always be drawn.
        self._foreign = [
            name
            for name, dataset in settings.datasets.items()
            if name not in settings.at_hand
            and dataset.synthetic is None
            and any((RESULTS / name / "scores").glob("*.json"))
        ]
        self.experiments = {name: file for name, file in files.items() if self._has_content(file)}
        self.searches = {
            name.removeprefix(SEARCH_PREFIX): file
            for name, file in files.items()
            if isinstance(file, Search) and file.dataset in settings.at_hand
        }

    def _has_content(self, experiment: Experiment) -> bool:
        if isinstance(experiment, RelationFigure | RankedLists):
            return bool(self.shown_runs(experiment))
        if isinstance(experiment, ScoreTable):
            return bool(experiment.printed) or any(
                evaluations for _, evaluations in self.rows(experiment)
            )
        return not isinstance(experiment, Search)

    def datasets(self, table: ScoreTable) -> list[str]:
        """The data sets that a table shows: at hand, then others with results.

        A data set for which the paper prints numbers is in the tables with such numbers alone. All
        others, such as the synthetic set or a set of one's own, are in each table.
        """
        tables = [file for file in self._files.values() if isinstance(file, ScoreTable)]
        printed_anywhere = {name for file in tables for name in file.printed}
        return [
            name
            for name in (*self.settings.at_hand, *self._foreign)
            if not table.printed or name in table.printed or name not in printed_anywhere
        ]

    def rows(self, table: ScoreTable) -> list[tuple[Row, list[Evaluation]]]:
        """Each row with its evaluations: for each data set of the table, one for each seed."""
        datasets = self.datasets(table)
        return [
            (
                row,
                [
                    evaluation
                    for on in datasets
                    for evaluation in self._row_evaluations(row, on, table)
                ],
            )
            for row in table.rows
        ]

    def _row_evaluations(self, row: Row, on: str, table: ScoreTable) -> list[Evaluation]:
        name = row.trained_on or on
        dataset = self.settings.datasets[name]
        recipe = dataset.recipes.get(row.recipe)
        if row.network is None or recipe is None or not dataset.includes(row.network):
            return []
        seeds = table.seeds.get(name, dataset.seeds)
        evaluations = [Evaluation(Run(name, row.network, recipe, seed), on) for seed in seeds]
        return [each for each in evaluations if self._is_shown(each)]

    def is_at_hand(self, evaluation: Evaluation) -> bool:
        """Whether the data of an evaluation are at hand. Other results are read, never made."""
        names = {evaluation.run.dataset, evaluation.on}
        return names <= set(self.settings.at_hand)

    def _is_shown(self, evaluation: Evaluation) -> bool:
        """Whether an evaluation is made here, or its run was trained elsewhere and has results."""
        if self.is_at_hand(evaluation):
            return True
        foreign = evaluation.run.dataset not in self.settings.at_hand
        return foreign and evaluation.scores.exists() and evaluation.queries.exists()

    def foreign_evaluations(self) -> list[Evaluation]:
        """The evaluations that the tables show and whose data are not at hand, each once."""
        evaluations = dict.fromkeys(self._table_evaluations(self.experiments.values()))
        return [each for each in evaluations if not self.is_at_hand(each)]

    def _table_evaluations(self, experiments: Iterable[Experiment]) -> list[Evaluation]:
        tables = [table for table in experiments if isinstance(table, ScoreTable)]
        return [each for table in tables for _, row in self.rows(table) for each in row]

    def baseline(self, row: Row, evaluation: Evaluation) -> Evaluation | None:
        """The evaluation that one of a row is compared with: its network is `against`.

        Returns:
            None where the row names no such network, or the data set does without the network or
            its recipe. None, too, where neither the data nor the results are at hand.
        """
        run = evaluation.run
        dataset = self.settings.datasets[run.dataset]
        recipe = dataset.recipes.get(row.against_recipe or row.recipe)
        if row.against is None or recipe is None or not dataset.includes(row.against):
            return None
        candidate = evaluation._replace(run=run._replace(network=row.against, recipe=recipe))
        return candidate if self._is_shown(candidate) else None

    def is_compared(self, table: ScoreTable) -> bool:
        """Whether a row of a table has a number that is compared with another network's."""
        return any(
            self.baseline(row, evaluation) is not None
            for row, evaluations in self.rows(table)
            for evaluation in evaluations
        )

    def shown_runs(self, experiment: RelationFigure | RankedLists) -> list[Run]:
        """The runs whose view of synthetic people is shown: the first seed of each network.

        Returns:
            The run of each network, then the run of `against` if there is such an option. The list
            is empty where no synthetic set is at hand, or the set does without one of the networks.
        """
        if isinstance(experiment, RankedLists):
            networks = [*experiment.networks, experiment.against]
        else:
            networks = [experiment.network]
        for name in self.settings.at_hand:
            dataset = self.settings.datasets[name]
            if dataset.synthetic is not None and all(map(dataset.includes, networks)):
                recipe, seed = dataset.recipes["plain"], dataset.seeds[0]
                return [Run(name, network, recipe, seed) for network in networks]
        return []

    def evaluations(self, names: Iterable[str] = ()) -> list[Evaluation]:
        """The evaluations that the named experiments need, each once; without a name, of all.

        The evaluation of a run from whose model others start comes before theirs.

        Raises:
            SettingsError: a name that no experiment has, or a run that starts from itself.
        """
        selection = [self.experiment(name, Experiment) for name in names]
        experiments = selection or list(self.experiments.values())
        evaluations = list(filter(self.is_at_hand, self._table_evaluations(experiments)))
        for experiment in experiments:
            if isinstance(experiment, RelationFigure | RankedLists):
                evaluations += map(own_evaluation, self.shown_runs(experiment))
        if not selection:
            evaluations += map(own_evaluation, self._search_starts())
        return list(
            dict.fromkeys(
                each
                for evaluation in evaluations
                for each in (*map(own_evaluation, self.starts(evaluation.run)), evaluation)
            )
        )

    def start(self, run: Run) -> Run | None:
        """The run whose model a run starts from: its weights are `models/<key>`.

        Raises:
            SettingsError: the key of no run, or a wrong option of the network.
        """
        settings = self.settings
        names = run.network, run.recipe
        if names not in self._weights:
            recipe = settings.recipes[run.recipe]
            options = build_network(run.network, settings.networks[run.network], recipe)
            self._weights[names] = options.weights
        weights = self._weights[names]
        key = find_start(weights)
        if key is None:
            return None
        try:
            return parse_run(key, settings)
        except SettingsError as error:
            raise SettingsError(
                f"{PARAMS}: run {run.key} starts from {weights}, the model of a run: {error}; keep "
                f"weights of your own outside {MODELS}/"
            ) from error

    def starts(self, run: Run) -> list[Run]:
        """The runs that must be done before a run, the first of them first.

        Raises:
            SettingsError: a run starts from itself or has seen the people on which the run is
                scored, or see `start`.
        """
        hold_out = self.settings.recipes[run.recipe].hold_out
        chain = [run]
        while (start := self.start(chain[-1])) is not None:
            if start in chain:
                raise SettingsError(
                    f"{PARAMS}: the run {start.key} starts from its own weights, {start.model}: "
                    "give its recipe or network other weights"
                )
            chain.append(start)
            if hold_out and start.dataset == run.dataset:
                self._check_hold_out(start)
        return chain[:0:-1]

    def _check_hold_out(self, start: Run) -> None:
        if not self.settings.recipes[start.recipe].hold_out:
            raise SettingsError(
                f"{PARAMS}: the run {start.key}, from which others start, has seen the held-out "
                f"people on whom they are scored: set hold_out of the recipe {start.recipe}"
            )

    def _search_starts(self) -> list[Run]:
        """The runs from whose models the trials of searches start."""
        starts = []
        for search in self.searches.values():
            run = Run(search.dataset, search.network, search.recipe, search.seed)
            for start in self.starts(run):
                if start.dataset == search.dataset:
                    self._check_hold_out(start)
                starts.append(start)
        return starts

    def limit(self, names: Iterable[str]) -> Plan:
        """The plan of some of the tables and figures, which show what they show here."""
        plan = copy(self)
        plan.experiments = {name: self.experiments[name] for name in names}
        return plan

    def experiment(self, name: str, kind: type[Kind]) -> Kind:
        """The table or figure of that name.

        Raises:
            SettingsError: there is none, its kind is another, or it shows no data set at hand.
        """
        experiment = self.file(name, kind)
        if name not in self.experiments:
            raise SettingsError(
                f"{EXPERIMENTS / name}.yaml shows no data set at hand: choose "
                f"{', '.join(self.experiments)}"
            )
        return experiment

    def file(self, name: str, kind: type[Kind]) -> Kind:
        """The file of that name in experiments/, whether or not it has something to show.

        Raises:
            SettingsError: there is none, or its kind is another.
        """
        file = self._files.get(name)
        if isinstance(file, kind) and not isinstance(file, Search):
            return file
        problem = "is of another kind" if file else "does not exist"
        if isinstance(file, Search):
            problem = "is a search, which `make search` runs"
        choices = [each for each, other in self.experiments.items() if isinstance(other, kind)]
        raise SettingsError(f"{EXPERIMENTS / name}.yaml {problem}: choose {', '.join(choices)}")

    def search(self, name: str) -> Search:
        """The search of that name.

        Raises:
            SettingsError: there is none, or its data set is not at hand.
        """
        if name not in self.searches:
            path = EXPERIMENTS / f"{SEARCH_PREFIX}{name}.yaml"
            problem = "is on a data set that is not at hand" if path.exists() else "does not exist"
            choices = ", ".join(self.searches) or "none"
            raise SettingsError(f"{path} {problem}: choose {choices}")
        return self.searches[name]


def load_plan() -> Plan:
    """The plan of params.yaml and experiments/.

    Raises:
        SettingsError: a mistake in these files.
    """
    settings = load()
    files = read_experiments(settings)
    check_options(settings, files)
    return Plan(settings, files)


def check_options(settings: Settings, files: Mapping[str, Experiment]) -> None:
    """Build all that the two files ask for as values of the library, whether or not it is run.

    Raises:
        SettingsError: a reader that does not exist, a wrong option of a recipe or a network, or a
            search of an option that its network and recipe lack.
    """
    for name, dataset in settings.datasets.items():
        if find_spec(f"ianet.datasets.{dataset.reader}") is None:
            raise SettingsError(
                f"{PARAMS}: datasets.{name}.reader is {dataset.reader!r}: there is no file "
                f"ianet/datasets/{dataset.reader}.py"
            )
    for name, recipe in settings.recipes.items():
        build_recipe(name, recipe)
        build(NetworkOptions, recipe.network, f"recipes.{name}.network")
    for name, options in settings.networks.items():
        build(NetworkOptions, options, f"networks.{name}")
    for name, file in files.items():
        if isinstance(file, Search):
            try:
                for trial in space.examples(file):
                    check_trial(file, trial, settings)
            except ValueError as error:
                raise SettingsError(f"{EXPERIMENTS / name}.yaml: {error}") from error
        if isinstance(file, RelationFigure):
            refuse_unknown(f"{EXPERIMENTS / name}.yaml: stage", file.stage, STAGES)


def check_trial(search: Search, trial: Mapping[str, Any], settings: Settings) -> None:
    """Refuse a trial whose values are wrong, or whose weights the plan does not know.

    Raises:
        ValueError: the message says which option is wrong.
    """
    network, recipe = settings.networks[search.network], settings.recipes[search.recipe]
    weights = configure_trial(search, trial, network, recipe).network.weights
    if weights not in ("none", "imagenet"):
        for option in ("network.backbone", "network.weights"):
            if option in search.space:
                raise SettingsError(
                    f"trials that start from {weights} cannot try {option}: search among none and "
                    "imagenet, or fix the weights and the backbone"
                )


def own_evaluation(run: Run) -> Evaluation:
    """The evaluation of a run on the data set of its training."""
    return Evaluation(run, run.dataset)


def unique_runs(evaluations: Iterable[Evaluation]) -> list[Run]:
    """The runs behind evaluations, each once."""
    return list(dict.fromkeys(evaluation.run for evaluation in evaluations))


def image_sets(evaluations: Iterable[Evaluation], settings: Settings) -> list[tuple[str, str]]:
    """The data sets whose images evaluations need, with the size, each pair once."""
    pairs = [
        (name, settings.recipes[run.recipe].size)
        for run, on in evaluations
        for name in (run.dataset, on)
    ]
    return list(dict.fromkeys(pairs))
