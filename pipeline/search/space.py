"""The space of a search: the values of a trial, and the network and recipe that they stand for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from itertools import chain, combinations
from math import prod
from typing import Any

from pipeline.config.experiments import (
    COUNTABLE,
    Integers,
    LogUniform,
    Search,
    Subsets,
    Twice,
    Uniform,
    Values,
)
from pipeline.config.settings import RecipeSettings, SettingsError


def parameter_space(search: Search) -> dict[str, Any]:
    """Ray Tune's space, of each option but those that follow from another.

    A list stands as its JSON, as Optuna and MLflow want plain values.
    """
    from ray import tune

    space: dict[str, Any] = {}
    for name, options in search.space.items():
        match options:
            case Values() | Subsets():
                grid = search.algorithm == "grid"
                space[name] = (tune.grid_search if grid else tune.choice)(choices(options))
            case Integers(integers=(low, high)):
                space[name] = tune.randint(low, high + 1)
            case Uniform(uniform=(low, high)):
                space[name] = tune.uniform(low, high)
            case LogUniform(log_uniform=(low, high)):
                space[name] = tune.loguniform(low, high)
    return space


def choices(options: Values | Subsets) -> list[Any]:
    """Each choice, a list as its JSON."""
    if isinstance(options, Subsets):
        sizes = range(1, len(options.subsets) + 1)
        subsets = chain.from_iterable(combinations(options.subsets, size) for size in sizes)
        return [json.dumps(subset) for subset in subsets]
    return [
        json.dumps(value) if isinstance(value, list | dict) else value for value in options.values
    ]


def count_trials(search: Search) -> int:
    """How many trials a search has."""
    if search.trials is not None:
        return search.trials
    return prod(
        options.count for options in search.space.values() if isinstance(options, COUNTABLE)
    )


def examples(search: Search) -> Iterator[dict[str, Any]]:
    """Trials that have each choice and each end once, to find mistakes before the search."""
    ends: dict[str, Sequence[Any]] = {}
    for name, options in search.space.items():
        match options:
            case Values() | Subsets():
                ends[name] = choices(options)
            case Integers(integers=numbers) | Uniform(uniform=numbers):
                ends[name] = numbers
            case LogUniform(log_uniform=numbers):
                ends[name] = numbers
    first = {name: values[0] for name, values in ends.items()}
    yield first
    for name, values in ends.items():
        for value in values[1:]:
            yield {**first, name: value}


def all_values(search: Search, trial: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a trial with those that follow from another, lists as lists."""
    values = {
        name: json.loads(value)
        if isinstance(value, str) and value.startswith(("[", "{"))
        else value
        for name, value in trial.items()
    }
    for name, options in search.space.items():
        if isinstance(options, Twice):
            values[name] = 2 * values[options.twice]
    return {name: values[name] for name in search.space}


def short_names(search: Search) -> dict[str, str]:
    """Options to the shortest names that tell them apart, such as sigma_1 for ...sigma.0."""
    for length in range(1, 10):
        names = {option: _short_name(option, length) for option in search.space}
        if len(set(names.values())) == len(names):
            return names
    return {option: option for option in search.space}


def _short_name(option: str, length: int) -> str:
    *path, last = option.split(".")
    if last.isdecimal():  # a place in a list, which people count from 1
        last = f"{path.pop()}_{int(last) + 1}"
    return ".".join([*path[len(path) - length + 1 :], last] if length > 1 else [last])


def label(search: Search, trial: Mapping[str, Any]) -> str:
    """The name of a trial: what it tries, such as `sigma_1=8, sigma_2=16`."""
    names = short_names(search)
    values = all_values(search, trial)
    return ", ".join(f"{names[option]}={show_value(value)}" for option, value in values.items())


def show_value(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "null"  # as in YAML
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def apply(
    search: Search, trial: Mapping[str, Any], network: Mapping[str, Any], recipe: RecipeSettings
) -> tuple[dict[str, Any], RecipeSettings]:
    """The network and recipe of a trial.

    Args:
        search: which.
        trial: a value for each option of `parameter_space`.
        network, recipe: in which the values take the place of their own.

    Raises:
        SettingsError: there is no such place.
    """
    entry = {"network": deepcopy(dict(network)), "training": deepcopy(recipe.training)}
    for name, value in all_values(search, trial).items():
        *path, last = name.split(".")
        place: Any = entry
        try:
            for step in path:
                place = place[int(step) if isinstance(place, list) else step]
            place[int(last) if isinstance(place, list) else last] = value
        except (LookupError, TypeError, ValueError):
            raise SettingsError(
                f"space: {name} is no place in the network or the recipe of the search"
            ) from None
    return entry["network"], recipe.model_copy(update={"training": entry["training"]})
