"""Run a search: its trials under Ray Tune, the best of them trained again, the results."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.basic_variant import BasicVariantGenerator

from ianet.cameras import label_cameras
from ianet.files import build_whole, delete_leftovers
from ianet.options import Cameras
from pipeline.cluster.lease import Lease
from pipeline.cluster.remote import call_on_cluster
from pipeline.cluster.resources import share, trainings_at_a_time
from pipeline.cluster.storage import SEARCHES, TRAININGS, Storage
from pipeline.commit import find_commit
from pipeline.config.experiments import EXPERIMENTS, SEARCH_PREFIX, Search
from pipeline.config.settings import PARAMS, SettingsError
from pipeline.plan.dvc_yaml import SEARCH_RESULTS
from pipeline.plan.plan import Plan
from pipeline.plan.records import SEARCH, read_description
from pipeline.plan.runs import Run, check_prepared
from pipeline.plan.sources import Code
from pipeline.search import results, space
from pipeline.search.display import SearchDisplay
from pipeline.search.trial import ResumableASHA, Setting, TrialProgress, run_trial
from pipeline.tracking.recorder import Recorder, send_safely
from pipeline.tracking.search import open_search_run, sync_search_results
from pipeline.training.configuration import KEY_DIGITS, Configuration, configure, configure_trial
from pipeline.training.launch import check_parts, find_place, run_workers, wait_for
from pipeline.training.progress import POLL, POLL_OF_STORE, Report, read_progress
from pipeline.training.workers import allowed_losses

if TYPE_CHECKING:
    from pipeline.scoring import Scores

LOCAL = ("traceback", "warning")  # of a trial's progress: they name paths of the machine
CHECKPOINTS = 3  # of a trial, as on a busy machine two epochs may end between two saves

log = logging.getLogger(__name__)


def run_search(name: str, plan: Plan, ready: Callable[[], None]) -> str:
    """Run a search and write its results.

    Args:
        name: of the search.
        plan: of params.yaml and experiments/.
        ready: of `pipeline.cluster.session.session`.

    Returns:
        A line for the best trial, one for all, and one for each that failed.

    Raises:
        SettingsError: a mistake in the search, a password in the storage's URL, or another command
            runs the search.
        ValueError: Ray holds too little for one trial, or all trials failed.
        OSError: its data is not prepared, MLflow does not answer, or Ray was lost.
    """
    search = plan.search(name)
    settings = plan.settings
    run = Run(search.dataset, search.network, search.recipe, search.seed)
    recipe = settings.recipes[search.recipe]
    network = settings.networks[search.network]
    configuration = _check(name, search, plan, run)
    options = search.model_dump(mode="json", exclude={"title", "caption"})
    code = Code().digest_trials(asdict(configuration.network))
    digest = configuration.digest(run.prepared, code, options)
    key = f"{name}.{digest[:KEY_DIGITS]}"
    storage = Storage(settings.cluster.storage)
    if storage.holds_password:
        raise SettingsError(
            f"{storage.option}, {storage.label}, holds a password, which Ray Tune would write into "
            "this storage: name no password there, and set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY on each machine"
        )
    commit = find_commit()  # of the code that this process has read
    with Lease(storage, f"{SEARCHES}/{name}", f"searching {name}") as lease:
        with open_search_run(name, key, search) as recorder:
            ready()
            if settings.workers not in ("auto", 1):
                log.info("a trial has one worker, not the %s of params.yaml", settings.workers)
            # With the workers of the training of the best, so that a lack of places shows now.
            place = find_place(storage, run, configuration, settings)
            place = replace(place, share=share("auto", alone=False))
            setting = Setting(key, search, network, recipe, place)
            lease.confirm()  # a search that begins anew deletes what was before
            display = SearchDisplay(space.count_trials(search), setting.epochs, search.maximise)
            with display:
                follower = SearchFollower(setting, recorder, display)
                wait_for(lambda: call_on_cluster(lambda: tune_trials(setting)), follower)
                follower.look()
            trials = read_progress(storage, *setting.progress) or []
            table = results.table(trials)
            values = trials[results.best_trial(table, search)]["values"]
            log.info("best: %s; now trained on all identities", space.label(search, values))
            scores = _test_best(run, plan, search, values, f"{key}.best", storage)
            test = scores.summary()
            result = SearchResult(key, commit, trials, table, values, test, scores.cameras)
            lease.confirm()
            _write(name, plan, search, result)
            folder = SEARCH_RESULTS / name
            send_safely(lambda: sync_search_results(name, search, folder))
        for parts in ((SEARCHES, key), setting.progress, (TRAININGS, f"{key}.best")):
            lease.confirm()
            storage.delete_folder(*parts)
    label = label_cameras(scores.cameras)
    best = f"best on test {search.maximise} {test[search.maximise]:.1%}{label}: {folder}"
    return f"search {name}: {best}\n{results.summarise(table)}"


def _check(name: str, search: Search, plan: Plan, run: Run) -> Configuration:
    """The configuration of an example trial.

    Raises:
        SettingsError: a mistake in the search.
        FileNotFoundError: its data is not prepared.
    """
    settings = plan.settings
    network, recipe = settings.networks[search.network], settings.recipes[search.recipe]
    configuration = configure_trial(search, next(space.examples(search)), network, recipe)
    check_prepared(run.dataset, configuration.size)
    description = read_description(run.prepared)
    if description["scoring"] == "single_shot" and search.maximise != "top-1":
        raise SettingsError(
            f"{EXPERIMENTS}/{SEARCH_PREFIX}{name}.yaml: the protocol of {run.dataset} defines no "
            f"{search.maximise}: maximise top-1"
        )
    if plan.settings.datasets[run.dataset].held_out == 0:
        raise SettingsError(
            f"{PARAMS}: datasets.{run.dataset}.held_out is 0: a search scores its trials on "
            "held-out identities, never on test"
        )
    check_parts(run, plan.settings, hold_out=True)
    return configuration


class SearchFollower:
    """Reads the progress of a search, for MLflow and the display.

    Attributes:
        poll: seconds from one reading to the next.
        trials: what was read last, see `TrialProgress`.
    """

    def __init__(self, setting: Setting, recorder: Recorder, display: SearchDisplay) -> None:
        self.storage, self.folder = setting.storage, setting.progress
        self.recorder, self.display = recorder, display
        self.poll = POLL if self.storage.is_folder else POLL_OF_STORE
        self.trials: list[dict[str, Any]] = []

    def look(self) -> None:
        """Read once; a storage that does not answer is asked again by the next look."""
        try:
            trials = read_progress(self.storage, *self.folder)
        except (OSError, ValueError):
            return
        if trials is not None and trials != self.trials:
            self.trials = trials
            self.display.show(trials)
            self.recorder.send(trials)


def tune_trials(setting: Setting) -> None:
    """Run all trials of a search, which resumes where it stopped, on a node of the cluster."""
    search, storage = setting.search, setting.storage
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failed trials are in our table
    part = setting.place.share
    resources = {"CPU": float(part.cpus), "GPU": float(part.gpus)}
    trainable = tune.with_resources(tune.with_parameters(run_trial, setting=setting), resources)
    if tuner := _restore(setting, trainable):
        tuner.fit()
        return
    storage.delete_folder(SEARCHES, setting.key)
    storage.delete_folder(*setting.progress)
    scheduler = ResumableASHA(setting) if search.scheduler == "asha" else FIFOScheduler()
    tune.Tuner(
        trainable,
        param_space=space.parameter_space(search),
        tune_config=tune.TuneConfig(
            metric=search.maximise,
            mode="max",
            num_samples=search.trials or 1,  # of a grid each point once
            search_alg=_searcher(search),
            scheduler=scheduler,
            reuse_actors=True,  # a process that has imported torch serves the next trial
        ),
        run_config=tune.RunConfig(
            name=setting.key,
            storage_path=storage.path(SEARCHES),
            storage_filesystem=storage.files,
            # After a kill Ray Tune needs a checkpoint that was the last when it saved its state.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=CHECKPOINTS),
            failure_config=tune.FailureConfig(allowed_losses()),
            callbacks=[TrialProgress(setting)],
            verbose=0,
        ),
    ).fit()


def _restore(setting: Setting, trainable: Any) -> tune.Tuner | None:
    """The search that was stopped; None if Ray Tune had saved no trial.

    Raises:
        OSError: the storage does not answer.
    """
    storage = setting.storage
    path = storage.path(SEARCHES, setting.key)
    if not (tune.Tuner.can_restore(path, storage.files) and _has_trials(setting)):
        return None
    try:
        tuner = tune.Tuner.restore(
            path, trainable, resume_errored=True, storage_filesystem=storage.files
        )
        tuner.get_results()  # where no trial was saved, `fit` would begin with no values
    except OSError:
        raise
    except Exception as error:
        log.info("the search begins anew: %s", error)
        return None
    return tuner


def _has_trials(setting: Setting) -> bool:
    return bool(read_progress(setting.storage, *setting.progress))


def _searcher(search: Search) -> Any:
    """What chooses the values of the next trial."""
    at_a_time = trainings_at_a_time("auto")
    if search.algorithm != "optuna":
        return BasicVariantGenerator(max_concurrent=at_a_time, random_state=search.seed)
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return ConcurrencyLimiter(OptunaSearch(seed=search.seed), at_a_time)


def _test_best(
    run: Run, plan: Plan, search: Search, values: dict[str, Any], name: str, storage: Storage
) -> Scores:
    """Scores on test of the best network, trained as its recipe says, on all identities."""
    from pipeline.scoring import score_run

    settings = plan.settings
    recipe = settings.recipes[search.recipe].model_copy(update={"hold_out": False})
    network, recipe = space.apply(search, values, settings.networks[search.network], recipe)
    configuration = configure(run, network, recipe)
    place = find_place(storage, run, configuration, settings)

    def show(history: list[Report]) -> None:
        log.info("  epoch %.0f  loss %.3f", history[-1]["epoch"], history[-1]["loss"])

    result = run_workers(configuration, place, name, show, lambda part: None)
    with tempfile.TemporaryDirectory() as folder:
        result.write_network(Path(folder))
        return score_run(
            Path(folder), run.dataset, configuration.size, storage, run.seed, hold_out=False
        )


class SearchResult(NamedTuple):
    """What a search has found.

    Attributes:
        key: of the search.
        commit: of the code, when the search began.
        trials: see `TrialProgress`.
        table: a row for each trial, see `results.table`.
        best: the values of the best trial.
        test: scores on test of the network with these values.
        cameras: of these scores, see `ianet.options.Cameras`.
    """

    key: str
    commit: str
    trials: list[dict[str, Any]]
    table: pd.DataFrame
    best: dict[str, Any]
    test: dict[str, float | None]
    cameras: Cameras


def _write(name: str, plan: Plan, search: Search, result: SearchResult) -> None:
    """Write results/searches/<name>, whole or not at all."""
    settings = plan.settings
    network, recipe = space.apply(
        search, result.best, settings.networks[search.network], settings.recipes[search.recipe]
    )
    scores = {
        score: None if mean is None else round(mean, 6) for score, mean in result.test.items()
    }
    summary = {
        "search": result.key, "best": result.best, "cameras": result.cameras, "test": scores,
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "commit": result.commit,
    }  # fmt: skip
    trials = [
        {key: value for key, value in trial.items() if key not in LOCAL} for trial in result.trials
    ]
    delete_leftovers(SEARCH_RESULTS / name)
    with build_whole(SEARCH_RESULTS / name) as temporary:
        temporary.mkdir()
        results.write(temporary, search, result.table)
        results.write_best(temporary / "best.yaml", name, search, network, recipe)
        (temporary / SEARCH).write_text(json.dumps(summary, indent=2) + "\n")
        (temporary / "trials.json").write_text(json.dumps(trials, indent=2) + "\n")
        shutil.rmtree(SEARCH_RESULTS / name, ignore_errors=True)
