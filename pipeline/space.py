"""The space of a search: what a trial draws, and the network and recipe that it stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from itertools import chain, combinations
from math import prod
from typing import Any

from ray import tune

from pipeline.experiments import (
    COUNTABLE,
    Integers,
    LogUniform,
    Search,
    Subsets,
    Twice,
    Uniform,
    Values,
)
from pipeline.settings import RecipeSettings


def drawn(search: Search) -> dict[str, Any]:
    """Ray Tune's space: what is drawn for each option but those that follow from another.

    A list is drawn as its JSON, as Optuna and MLflow want plain values.
    """
    space: dict[str, Any] = {}
    for name, choices in search.space.items():
        match choices:
            case Values() | Subsets():
                grid = search.algorithm == "grid"
                space[name] = (tune.grid_search if grid else tune.choice)(countable(choices))
            case Integers(integers=(low, high)):
                space[name] = tune.randint(low, high + 1)
            case Uniform(uniform=(low, high)):
                space[name] = tune.uniform(low, high)
            case LogUniform(log_uniform=(low, high)):
                space[name] = tune.loguniform(low, high)
    return space


def countable(choices: Values | Subsets) -> list[Any]:
    """Each choice, a list as its JSON."""
    if isinstance(choices, Subsets):
        sizes = range(1, len(choices.subsets) + 1)
        subsets = chain.from_iterable(combinations(choices.subsets, size) for size in sizes)
        return [json.dumps(one) for one in subsets]
    return [json.dumps(one) if isinstance(one, list | dict) else one for one in choices.values]


def trials(search: Search) -> int:
    """How many trials it has."""
    if search.trials is not None:
        return search.trials
    counts = [len(countable(one)) for one in search.space.values() if isinstance(one, COUNTABLE)]
    return prod(counts)


def first(search: Search) -> dict[str, Any]:
    """A trial as good as any, to find mistakes in the space before the search."""
    trial: dict[str, Any] = {}
    for name, choices in search.space.items():
        match choices:
            case Values() | Subsets():
                trial[name] = countable(choices)[0]
            case Integers(integers=(low, _)):
                trial[name] = low
            case Uniform(uniform=(low, _)) | LogUniform(log_uniform=(low, _)):
                trial[name] = low
    return trial


def laid(
    search: Search, trial: Mapping[str, Any], network: Mapping[str, Any], recipe: RecipeSettings
) -> tuple[dict[str, Any], RecipeSettings]:
    """The network and recipe of a trial.

    Args:
        search: which.
        trial: a value for each option of `drawn`.
        network, recipe: over which the values are laid.

    Raises:
        ValueError: there is no such place.
    """
    values = {
        name: json.loads(value) if isinstance(value, str) and value[:1] in "[{" else value
        for name, value in trial.items()
    }
    for name, choices in search.space.items():
        if isinstance(choices, Twice):
            values[name] = 2 * values[choices.twice]
    entry = {"network": deepcopy(dict(network)), "training": deepcopy(recipe.training)}
    for name, value in values.items():
        *path, last = name.split(".")
        place: Any = entry
        try:
            for part in path:
                place = place[int(part) if isinstance(place, list) else part]
            place[int(last) if isinstance(place, list) else last] = value
        except (LookupError, TypeError, ValueError):
            raise ValueError(
                f"space: {name} is no place in the network or the recipe of the search"
            ) from None
    return entry["network"], recipe.model_copy(update={"training": entry["training"]})
