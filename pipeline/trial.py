"""One trial of a search, a training under Ray Train within Ray Tune, and what stops it early."""

from __future__ import annotations

import json
import math
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler

from pipeline import driver, space
from pipeline.experiments import Search
from pipeline.plan import Run
from pipeline.storage import TRAINING, Storage
from pipeline.worker import PROGRESS


def trial(values: dict[str, Any], base: dict[str, Any]) -> None:
    """Train with these values and report each epoch, scored on the held-out identities.

    A trial that was killed goes on from its last epoch; one that was done reports its last again.

    Args:
        values: of `space.drawn`.
        base: what all trials share: search, network, recipe, scaling, threads, failures and place.

    Raises:
        ValueError: the values do not fit together.
        ray.train.TrainingFailedError: its workers failed again and again.
    """
    search: Search = base["search"]
    run = Run(search.dataset, search.network, search.recipe, search.seed)
    laid = space.laid(search, values, base["network"], base["recipe"])
    _, config = driver.configured(run, *laid)
    config = {**base["place"], **config, "threads": base["threads"]}
    name = _training(base, tune.get_context().get_trial_id())
    storage = Storage(config["storage"])
    told = reports(base, tune.get_context().get_trial_id())
    if told and told[-1]["epoch"] == config["training"]["epochs"]:
        tune.report(told[-1])
        return
    driver.trainer(
        config,
        name,
        base["scaling"],
        storage,
        base["failures"],
        score=True,
        callbacks=[TuneReportCallback()],
    ).fit()


class Halving(ASHAScheduler):
    """Early stopping by successive halving, which in a search that goes on knows what its trials
    had reported before: Ray Tune saves its trials and not its scheduler.
    """

    def __init__(self, base: dict[str, Any]) -> None:
        """`base` as of `trial`."""
        epochs = base["recipe"].training["epochs"]
        super().__init__(time_attr="epoch", max_t=epochs, reduction_factor=2)
        self.base = base

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        # A trial that was stopped may have trained on for a moment, of which Ray Tune saw nothing.
        ended = trial.last_result["epoch"] if trial.is_finished() else math.inf
        for report in reports(self.base, trial.trial_id):
            if report["epoch"] <= ended:
                self.on_trial_result(tune_controller, trial, report)


def _training(base: dict[str, Any], trial: str) -> str:
    """Name of a trial's training in the storage."""
    return f"{base['name']}-{trial}"


def reports(base: dict[str, Any], trial: str) -> list[dict[str, float]]:
    """What a trial has told so far, an epoch each; `base` as of `trial`."""
    storage = Storage(base["place"]["storage"])
    told: list[dict[str, float]] = json.loads(
        storage.read(TRAINING, _training(base, trial), PROGRESS) or "[]"
    )
    return told
