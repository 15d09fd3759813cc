"""All that determines a training, as values that need no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ianet.options import NetworkOptions
from ianet.training.recipe import Recipe
from pipeline.cluster.resources import Share
from pipeline.cluster.storage import recall_digest
from pipeline.config.experiments import Search
from pipeline.config.settings import RecipeSettings, build_network, build_recipe
from pipeline.plan.runs import Run, prepared_files
from pipeline.plan.sources import weight_files
from pipeline.search import space

KEY_DIGITS = 12  # of a digest, in the name of a folder of checkpoints


@dataclass(frozen=True)
class Configuration:
    """What is trained, and how.

    Attributes:
        dataset: name of the data set.
        size: of the images, height x width.
        hold_out: whether the held-out identities are left out, and scored.
        seed: of the initial weights, the order and the augmentation, and for the split.
        network, recipe: values of the library.
    """

    dataset: str
    size: str
    hold_out: bool
    seed: int
    network: NetworkOptions
    recipe: Recipe

    def parameters(self) -> dict[str, Any]:
        """The configuration as plain data, such as JSON holds."""
        return asdict(self)

    def digest(
        self, prepared: Path, code: Mapping[str, str], search: Mapping[str, Any] | None = None
    ) -> str:
        """SHA-256 of what determines the result, as hexadecimal digits.

        Args:
            prepared: the folder of the data set, whose images may change below the same names.
            code: of `pipeline.plan.sources.Code`.
            search: what a search tries, if the configuration is that of its trials.
        """
        files = [prepared / name for name in prepared_files(self.size)]
        # A file of weights that is missing is reported by the training.
        files += [file for file in weight_files(asdict(self.network)) if file.is_file()]
        digest = hashlib.sha256()
        for file in files:
            digest.update(bytes.fromhex(recall_digest(file)))
        content = [self.parameters(), dict(code), dict(search or {})]
        digest.update(json.dumps(content, sort_keys=True).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Place:
    """Where a training computes, and where its files lie.

    Attributes:
        storage: URL or folder of checkpoints and progress.
        prepared: place of the data set in the storage, see `Storage.fetch`.
        share: its workers, and the CPU cores and GPUs of each.
        checkpoint_minutes: from one checkpoint to the next.
        weights: place of the folder with the initial weights, and the name of their file; None
            where none are named.
    """

    storage: str
    prepared: str
    share: Share
    checkpoint_minutes: float
    weights: tuple[str, str] | None = None


def configure(run: Run, network: Mapping[str, Any], recipe: RecipeSettings) -> Configuration:
    """The configuration of a run.

    Args:
        run: the names, for messages, and the seed.
        network, recipe: the entries of params.yaml under these names.

    Raises:
        SettingsError: an option is wrong.
    """
    return Configuration(
        dataset=run.dataset,
        size=recipe.size,
        hold_out=recipe.hold_out,
        seed=run.seed,
        network=build_network(run.network, network, recipe),
        recipe=build_recipe(run.recipe, recipe),
    )


def configure_trial(
    search: Search, trial: Mapping[str, Any], network: Mapping[str, Any], recipe: RecipeSettings
) -> Configuration:
    """The configuration of a trial, which leaves the held-out identities out.

    Args:
        search: which.
        trial: a value for each option, such as one of `pipeline.search.space.examples`.
        network, recipe: the entries of params.yaml that the search names.

    Raises:
        SettingsError: an option is wrong, or has no place.
    """
    run = Run(search.dataset, search.network, search.recipe, search.seed)
    recipe = recipe.model_copy(update={"hold_out": True})
    return configure(run, *space.apply(search, trial, network, recipe))
