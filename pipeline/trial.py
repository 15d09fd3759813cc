"""One trial of a search: a training under Ray Train, within Ray Tune."""

from __future__ import annotations

import json
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

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
        base: what all trials share: search, network, recipe, scaling, threads and place.

    Raises:
        ValueError: the values do not fit together.
        ray.train.TrainingFailedError: its workers failed again and again.
    """
    search: Search = base["search"]
    run = Run(search.dataset, search.network, search.recipe, search.seed)
    laid = space.laid(search, values, base["network"], base["recipe"])
    _, config = driver.configured(run, *laid)
    config = {**base["place"], **config, "threads": base["threads"]}
    name = f"{base['name']}-{tune.get_context().get_trial_id()}"
    storage = Storage(config["storage"])
    reports = json.loads(storage.read(TRAINING, name, PROGRESS) or "[]")
    if reports and reports[-1]["epoch"] == config["training"]["epochs"]:
        tune.report(reports[-1])
        return
    callbacks = [TuneReportCallback()]
    driver.trainer(config, name, base["scaling"], storage, score=True, callbacks=callbacks).fit()
