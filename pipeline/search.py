"""A search of experiments/ -> results/searches/<name>: the trials, the best one, its scores.

    python -m pipeline.search sigma

Ray Tune draws trials and runs as many at a time as Ray holds; each is a whole training, without
the held-out identities and scored on those. The best configuration is then trained on all training
identities and scored once, on test. `Ctrl-C` stops all; the same command goes on, and repeats no
finished trial.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import address, cluster
from pipeline.experiments import EXPERIMENTS, Search
from pipeline.plan import DESCRIPTION, Plan, Run, check_prepared, load_plan
from pipeline.settings import PARAMS, RecipeSettings, SettingsError
from pipeline.shell import only_one, stage

if TYPE_CHECKING:
    import pandas as pd
    from ray.tune.experiment import Trial

    from pipeline.recorder import Event
    from pipeline.storage import Storage

TUNE = {
    # Ctrl-C ends a search as it ends any stage; Ray Tune's own handler would let it return.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Files of Tune's own beside MLflow, the table and the plots.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",  # its tables beside ours
    # Seconds of results that a killed search may have to look up again.
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
}
RESULTS = Path("results/searches")
STATES = "experiment_state-*.json"  # as Ray Tune calls what it saves; the last by name is newest
# A trial's driver holds memory and no CPU: drivers that held all CPUs would wait for ever for
# those of each other's workers. It is on the node of Ray Tune, which gives a trial up whose driver
# is lost; a worker that is lost is Ray Train's to replace.
DRIVER = {"memory": 500e6}


def search(name: str, plan: Plan, ready: Callable[[], None]) -> None:
    """Run a search and write its results.

    Args:
        name: of the search.
        plan: of params.yaml and experiments/.
        ready: waits until Ray is there.

    Raises:
        SettingsError: there is no such search, or a mistake in its space.
        ValueError: Ray holds too little for one trial, all trials failed, or another command is
            at this search.
        OSError: its data is not prepared, or MLflow does not answer.
    """
    # torch, torchvision and MLflow take as long to import as Ray takes to start.
    from pipeline import driver, space, tracking, trials
    from pipeline.recorder import Recorder
    from pipeline.storage import PROJECT, SEARCHES, TRAINING, Storage
    from pipeline.trial import reports

    sheet = found(name, plan)
    settings = plan.settings
    run = Run(sheet.dataset, sheet.network, sheet.recipe, sheet.seed)
    recipe = settings.recipes[sheet.recipe].model_copy(update={"hold_out": True})
    network = settings.networks[sheet.network]
    try:
        _, config = driver.configured(run, *space.laid(sheet, space.first(sheet), network, recipe))
    except ValueError as error:
        raise SettingsError(f"{EXPERIMENTS}/search_{name}.yaml: {error}") from error
    check_prepared(run.dataset, recipe.size)
    described = json.loads((run.prepared / DESCRIPTION).read_text())
    if described["scoring"] == "single_shot" and sheet.maximise != "top-1":
        raise SettingsError(
            f"{EXPERIMENTS}/search_{name}.yaml: the protocol of {run.dataset} defines no "
            f"{sheet.maximise}: maximise top-1"
        )
    if settings.datasets[run.dataset].held_out == 0:
        raise SettingsError(
            f"{PARAMS}: datasets.{run.dataset}.held_out is 0: a search scores its trials on "
            "held-out identities, never on test"
        )
    searched = sheet.model_dump(mode="json", exclude={"title", "caption"})
    digest = driver.digest_of(run, [searched, config])
    key = f"{name}-{digest[: driver.DIGITS]}"
    storage = Storage(settings.cluster.storage)
    lock = PROJECT / SEARCHES / f"{name}.lock"
    with only_one(lock, f"searching {name}"):
        cluster.claim(storage.path(SEARCHES, name), f"searching {name}", ready)
        with tracking.search(name, key, sheet) as tracked:
            ready()
            place = driver.placed({"size": recipe.size}, run, storage)
            scaling, threads = cluster.scaling(settings.workers, alone=False)
            base = {
                "name": key,
                "search": sheet,
                "network": network,
                "recipe": recipe,
                "scaling": scaling,
                "threads": threads,
                "failures": driver.failures(),
                "place": place,
            }
            epochs = recipe.training["epochs"]
            told = partial(reports, base)
            recorder = Recorder(tracked, space.trials(sheet), epochs, sheet.maximise, told)
            with recorder.progress:
                table = cluster.followed(partial(tuned, base, settings.workers), recorder.take)
            values = trials.best(table, sheet)
            print(f"best: {trials.told(values)}; now trained on all identities", flush=True)
            recipe = settings.recipes[sheet.recipe]
            laid = space.laid(sheet, values, network, recipe)
            scores = _tested(run, *laid, f"{key}-best", settings.workers, place, storage)
            part = RESULTS / f".{name}"  # which one command at a time writes
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            trials.write(part, sheet, table, scores)
            trials.write_best(part / "best.yaml", name, sheet, *laid)
            shutil.rmtree(RESULTS / name, ignore_errors=True)
            part.replace(RESULTS / name)
            # From where it stays: MLflow may be away, and copies it when it is back.
            tracked.results(RESULTS / name, values, scores)
        # Also what an earlier search of this name left behind when it was stopped.
        own = rf"{re.escape(name)}-[0-9a-f]{{{driver.DIGITS}}}"
        storage.clear(SEARCHES, own)
        storage.clear(TRAINING, rf"{own}-.*")
    print(
        f"search {name}: {trials.summary(table)}; on test {sheet.maximise} "
        f"{scores[sheet.maximise]:.1%}: {RESULTS / name}"
    )


def found(name: str, plan: Plan) -> Search:
    """The search of that name.

    Raises:
        SettingsError: there is none, or its data set is not at hand.
    """
    if name not in plan.searches:
        path = EXPERIMENTS / f"search_{name}.yaml"
        lacks = "is on a data set that is not at hand" if path.exists() else "does not exist"
        raise SettingsError(f"{path} {lacks}: choose {', '.join(plan.searches) or 'none'}")
    return plan.searches[name]


def tuned(base: dict[str, Any], workers: int | str, tell: Callable[[Event], None]) -> pd.DataFrame:
    """All trials of a search, which goes on where it stopped, on a node of the cluster.

    Args:
        base: of `trial.trial`.
        workers: of each training, as in params.yaml.
        tell: is handed what happens to them.

    Returns:
        `trials.table`.

    Raises:
        ValueError: Ray holds too little for one trial, or all trials failed.
    """
    os.environ.update(TUNE)  # read when it starts, wherever that is
    import optuna
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.basic_variant import BasicVariantGenerator
    from ray.tune.search.optuna import OptunaSearch

    from pipeline import space, trials
    from pipeline.recorder import Teller
    from pipeline.storage import SEARCHES, Storage
    from pipeline.trial import Halving, trial

    sheet, epochs = base["search"], base["recipe"].training["epochs"]
    storage = Storage(base["place"]["storage"])
    at_a_time = min(cluster.trainings(workers), cluster.drivers(DRIVER["memory"]))
    teller = Teller(epochs, tell)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # of failed trials we tell
    drivers = tune.PlacementGroupFactory([DRIVER], bundle_label_selector=[cluster.own_node()])
    trainable = tune.with_resources(tune.with_parameters(trial, base=base), drivers)
    path = storage.path(SEARCHES, base["name"])
    if _begun(storage, base["name"]):
        tuner = tune.Tuner.restore(
            path, trainable, resume_errored=True, storage_filesystem=storage.files
        )
        return trials.table(tuner.fit(), epochs)
    searched = (
        ConcurrencyLimiter(OptunaSearch(seed=sheet.seed), at_a_time)
        if sheet.algorithm == "optuna"
        else BasicVariantGenerator(max_concurrent=at_a_time, random_state=sheet.seed)
    )
    scheduler = Halving(base) if sheet.scheduler == "asha" else FIFOScheduler()
    tuner = tune.Tuner(
        trainable,
        param_space=space.drawn(sheet),
        tune_config=tune.TuneConfig(
            metric=sheet.maximise,
            mode="max",
            num_samples=sheet.trials or 1,  # of a grid each point once
            search_alg=searched,
            scheduler=scheduler,
            trial_dirname_creator=_name_of,
        ),
        run_config=tune.RunConfig(
            name=base["name"],
            storage_path=storage.path(SEARCHES),
            storage_filesystem=storage.files,
            callbacks=[teller],
            verbose=0,
        ),
    )
    return trials.table(tuner.fit(), epochs)


def _begun(storage: Storage, name: str) -> bool:
    """Whether Ray Tune saved a trial of that search. Of one that was killed before, or while it
    wrote its state, Tune would remember no space: such a search begins anew.
    """
    from pipeline.storage import SEARCHES

    states = [one for one in storage.names(SEARCHES, name) if fnmatch(one, STATES)]
    saved = storage.read(SEARCHES, name, max(states)) if states else None
    try:
        return saved is not None and bool(json.loads(saved)["trial_data"])
    except ValueError:  # half of it
        return False


def _name_of(trial: Trial) -> str:
    """The name of its folder, by which its result is known."""
    return str(trial.trial_id)


def _tested(
    run: Run,
    network: dict[str, Any],
    recipe: RecipeSettings,
    name: str,
    workers: int | str,
    place: dict[str, Any],
    storage: Storage,
) -> dict[str, float | None]:
    """Scores on test of a network trained as its recipe says, but on all identities."""
    from pipeline import driver
    from pipeline.scoring import assessed

    recipe = recipe.model_copy(update={"hold_out": False})
    described, config = driver.configured(run, network, recipe)
    cluster.within(cluster.free_all)  # no trial is left
    config |= place
    last = driver.run_workers(config, name, workers, storage, _epoch_told, lambda part: None)
    trained = driver.restored(described, last)
    prepared, size = place["prepared"], recipe.size
    return assessed(trained.eval(), prepared, size, storage, run.seed, hold_out=False).summary()


def _epoch_told(report: dict[str, float]) -> None:
    print(f"  epoch {report['epoch']:.0f}  loss {report['loss']:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="experiments/search_<name>.yaml")
    name = parser.parse_args().name
    plan = load_plan()
    found(name, plan)
    address.take(plan.settings)
    with cluster.starting(dashboard=True) as ready:
        search(name, plan, ready)


if __name__ == "__main__":
    with stage():
        main()
