"""Every MLflow call.

One MLflow run for one training, found again by its tags: `evaluate`, or a training that was
killed and goes on, writes to the same one. The files of a run on disk are the truth; MLflow
shows them. So a server that goes away in the middle of a training costs its records only, and
those only if it stays away.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

# A call to a server that went away must fail in seconds: the defaults block for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipeline.experiments import Search
from pipeline.plan import TABLE, Run
from pipeline.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # half a second that a training need not spend

EXPERIMENT = "ianet"
SCORES = ("mAP", "mINP", "top-1", "top-5", "top-10")
PAUSE = 10  # seconds from an attempt that failed to the next
PATIENCE = 60  # seconds that a training that is done waits for a server that went away
REPRODUCTION = "reproduction"
LOCAL = "sqlite:///mlflow.db"
INTERFACE = "http://127.0.0.1:5000"  # of `make ui`
MODEL = Path("pipeline/served.py")
REQUIREMENTS = ["torch", "torchvision", "safetensors", "numpy", "pandas", "pillow"]

for _noisy in ("mlflow", "alembic"):
    logging.getLogger(_noisy).setLevel(logging.ERROR)
# Its advice on integer columns and on sources.
warnings.filterwarnings("ignore", module="mlflow")


Kind = TypeVar("Kind", bound="Tracked")


def connect() -> None:
    """Make MLflow ready, before any work that could be lost.

    Raises:
        ConnectionError: the server of MLFLOW_TRACKING_URI does not answer.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", LOCAL)
    mlflow.set_tracking_uri(uri)
    with first_use(Path()):
        try:
            mlflow.set_experiment(EXPERIMENT)
        except MlflowException as error:
            raise ConnectionError(
                f"MLflow at {uri} cannot be used ({str(error).splitlines()[0][:200]}): start the "
                f"server, or unset MLFLOW_TRACKING_URI to log to {LOCAL}"
            ) from error


@contextmanager
def first_use(project: Path) -> Iterator[None]:
    """Keep other processes of a project from the first use of its MLflow: several that meet a new
    sqlite file at once would break it for good.
    """
    (project / "build").mkdir(exist_ok=True)
    with (project / "build/mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Tracked:
    """The MLflow run of a training. What its server does not take, it gets when it is back."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.waiting: deque[Callable[[], object]] = deque()  # calls that were not taken, in order
        self.failed = -math.inf  # when the last attempt did
        self.known: dict[str, set[int]] = {}  # epochs that MLflow has, of this run and its children

    def _try(self, call: Callable[[], object]) -> None:
        self.waiting.append(call)
        if time.monotonic() - self.failed > PAUSE:
            self.send()

    def send(self) -> None:
        """Make the calls that wait; after one that fails, all the rest wait on."""
        try:
            while self.waiting:
                _called(self.waiting[0])
                self.waiting.popleft()
        except Exception as error:  # whatever MLflow raises, the training is worth more
            if self.failed == -math.inf:
                print(
                    f"MLflow went away ({str(error).splitlines()[0][:120]}): going on, all results "
                    "are on disk, and what it missed is sent when it is back",
                    file=sys.stderr,
                )
            self.failed = time.monotonic()

    def finish(self, patience: float) -> None:
        """Make the calls that wait, for so many seconds until the server is back."""
        until = time.monotonic() + patience
        self.send()
        while self.waiting and time.monotonic() < until:
            time.sleep(1)
            self.send()
        if self.waiting:
            print(f"MLflow stayed away: it lacks {len(self.waiting)} records", file=sys.stderr)

    def epoch(self, report: dict[str, float]) -> None:
        metrics = {name: value for name, value in report.items() if name != "epoch"}
        # By its id: the active run is known to one thread only, and this may be another.
        step, run_id = int(report["epoch"]), self.run_id
        self._try(lambda: self._record(run_id, step, metrics))

    def _record(self, run_id: str, step: int, metrics: dict[str, float]) -> None:
        """An epoch, once, whichever command tells it."""
        known = self.known.setdefault(run_id, set())
        if step not in known:
            mlflow.log_metrics(metrics, step=step, run_id=run_id)
            known.add(step)

    def model(self, run: Run) -> None:
        """The trained run, loadable with `mlflow.pyfunc.load_model`, registered by its data set
        and network.
        """
        self._try(
            lambda: mlflow.pyfunc.log_model(
                name="model",
                registered_model_name=f"{run.dataset}-{run.network}",
                loader_module=MODEL.stem,
                data_path=str(run.folder),
                code_paths=["ianet", str(MODEL)],
                # Given, as MLflow would find them by loading the model in a new process.
                pip_requirements=REQUIREMENTS,
            )
        )

    def scores(self, scores: dict[str, Any], figure: Figure) -> None:
        """Metrics test_mAP, test_top_1, ..., and across domains <data set>_test_mAP, ..."""
        abroad = f"{scores['on']}_" if scores["on"] != scores["dataset"] else ""
        metrics = {
            f"{abroad}{_under(name, scores['split'])}": scores[name]
            for name in (*SCORES, "entropy")
            if scores[name] is not None  # not defined by the data set's protocol
        }
        self._try(lambda: mlflow.log_metrics(metrics))
        self._try(lambda: mlflow.log_figure(figure, f"{abroad}cmc.png"))


def _called(call: Callable[[], object]) -> None:
    """What the server refuses it would refuse for ever: that is told, and not tried again."""
    try:
        call()
    except MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise
        print(f"MLflow refused a record: {str(error).splitlines()[0][:200]}", file=sys.stderr)


class TrackedSearch(Tracked):
    """The MLflow run of a search, with a child run for each trial."""

    def __init__(self, run_id: str, key: str) -> None:
        super().__init__(run_id)
        self.key = key
        self.client = mlflow.MlflowClient()
        self.children: dict[str, str] = {}  # of trials, but those that the server refused

    def begun(
        self, trial: str, values: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]
    ) -> None:
        """A trial starts, or goes on after these epochs."""
        self._try(lambda: self._begin(trial, values))
        for report in reports:
            self.epoch_of(trial, report)

    def _begin(self, trial: str, values: Mapping[str, Any]) -> None:
        child = self._child(trial)
        for option, value in values.items():
            self.client.log_param(child, option, value)
        self.children[trial], self.known[child] = child, _epochs(child)

    def _child(self, trial: str) -> str:
        tags = {"search": self.key, "trial": trial, MLFLOW_PARENT_RUN_ID: self.run_id}
        wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        experiment = self.client.get_run(self.run_id).info.experiment_id
        found = self.client.search_runs([experiment], wanted, max_results=1)
        if found:
            self.client.set_terminated(found[0].info.run_id, "RUNNING")
            return str(found[0].info.run_id)
        name = f"{self.key.rpartition('-')[0]} {trial}"
        return str(self.client.create_run(experiment, tags=tags, run_name=name).info.run_id)

    def epoch_of(self, trial: str, report: Mapping[str, Any]) -> None:
        """A trial's epoch is done."""
        metrics = {
            _under(name, "held-out"): float(report[name])
            for name in ("loss", "accuracy", "lr", *SCORES)
            if report.get(name) is not None
        }
        self._try(lambda: self._epoch(trial, int(report["epoch"]), metrics))

    def _epoch(self, trial: str, step: int, metrics: dict[str, float]) -> None:
        if trial in self.children:
            self._record(self.children[trial], step, metrics)

    def ended(self, trial: str, state: str, *, failed: bool) -> None:
        """A trial ended, as `state` says."""
        self._try(lambda: self._end(trial, state, failed))

    def _end(self, trial: str, state: str, failed: bool) -> None:
        if trial in self.children:
            child = self.children[trial]
            self.client.set_tag(child, "state", state)
            self.client.set_terminated(child, "FAILED" if failed else "FINISHED")

    def results(
        self, folder: Path, values: Mapping[str, Any], scores: Mapping[str, float | None]
    ) -> None:
        """Files of the search, its best values, and their scores on test."""
        metrics = {
            _under(name, "test"): value for name, value in scores.items() if value is not None
        }
        self._try(lambda: mlflow.log_artifacts(str(folder), "search"))
        self._try(lambda: mlflow.log_params({f"best.{name}": one for name, one in values.items()}))
        self._try(lambda: mlflow.log_metrics(metrics))


def _under(name: str, split: str) -> str:
    """A metric's name in MLflow: of a score, with what was scored."""
    return f"{split}_{name.replace('-', '_')}" if name in SCORES else name


@contextmanager
def training(
    run: Run, digest: str, settings: Settings, config: dict[str, Any]
) -> Iterator[Tracked]:
    """The MLflow run of a training, new or, after a kill, the one that was begun. One that is
    trained again, as with other code, has a new one.

    Args:
        run: which.
        digest: of all that determines its result.
        settings: of params.yaml.
        config: of the worker: the network's and the recipe's options in full.

    Raises:
        ConnectionError: MLflow does not answer.
    """
    connect()
    begun = _find(run.key, digest)
    known = _epochs(begun) if begun else set()
    if len(known) == config["training"]["epochs"]:  # it was done
        begun, known = None, set()
    with _opened(_tags(run, digest), begun, Tracked) as tracked:
        if begun is None:
            parameters = {
                **run._asdict(),
                **{f"network.{name}": value for name, value in config["network"].items()},
                **{f"training.{name}": value for name, value in config["training"].items()},
                "hold_out": config["hold_out"],
                "workers": settings.workers,
            }
            mlflow.log_params(parameters)
            table = pd.read_parquet(run.prepared / TABLE)
            source = str(settings.datasets[run.dataset].source)
            dataset = from_pandas(table, source=source, name=run.dataset)
            mlflow.log_input(dataset, "training")
        tracked.known[tracked.run_id] = known
        yield tracked


@contextmanager
def evaluation(run: Run, digest: str) -> Iterator[Tracked]:
    """The MLflow run of a training, to add its scores; a new one if this MLflow lacks it."""
    connect()
    with _opened(_tags(run, digest), _find(run.key, digest), Tracked) as tracked:
        yield tracked


@contextmanager
def search(name: str, key: str, sheet: Search) -> Iterator[TrackedSearch]:
    """The MLflow run of a search, new or, after a kill, the one that was begun.

    Args:
        name: of the search.
        key: name of this search of that name, which goes on under it.
        sheet: what is searched.

    Raises:
        ConnectionError: MLflow does not answer.
    """
    connect()
    described = sheet.model_dump(mode="json", exclude={"title", "caption", "kind"})
    begun = _find(f"search-{name}", key)
    tags = {"run": f"search-{name}", "digest": key}
    with _opened(tags, begun, partial(TrackedSearch, key=key)) as tracked:
        if begun is None:
            mlflow.log_params(described)
            mlflow.set_tag("mlflow.note.content", f"{sheet.title}. {sheet.caption}")
        yield tracked


def reproduction(rows: Mapping[Run, Mapping[str, str]], results: Path) -> dict[Run, str]:
    """The one MLflow run of the whole reproduction, with all tables and figures as artifacts.

    Every training is tagged `table.<table>` with the label of its row there.

    Args:
        rows: for each run of the plan, the tables that name it, with the label of its row.
        results: folder whose files are logged.

    Returns:
        The page of each run that is recorded here; none where MLflow goes away meanwhile.

    Raises:
        ConnectionError: MLflow does not answer.
    """
    connect()
    try:
        return _reproduction(rows, results)
    except MlflowException as error:
        why = str(error).splitlines()[0][:120]
        print(f"MLflow went away ({why}): nothing links to it", file=sys.stderr)
        return {}


def _reproduction(rows: Mapping[Run, Mapping[str, str]], results: Path) -> dict[Run, str]:
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None  # `connect` made it
    uri = mlflow.get_tracking_uri()
    pages = f"{uri if uri.startswith('http') else INTERFACE}/#/experiments/"
    pages += experiment.experiment_id
    links = {}
    for run, tables in rows.items():
        run_id = _find(run.key, (run.folder / "digest.txt").read_text())
        if run_id is None:
            continue
        links[run] = f"{pages}/runs/{run_id}"
        for table, label in tables.items():
            client.set_tag(run_id, f"table.{table}", label)
    found = client.search_runs(
        [experiment.experiment_id], f"tags.run = '{REPRODUCTION}'", max_results=1
    )
    with mlflow.start_run(
        run_id=found[0].info.run_id if found else None,
        run_name=REPRODUCTION,
        tags={"run": REPRODUCTION},
    ):
        mlflow.log_artifacts(str(results), results.name)
    return links


def _epochs(run_id: str) -> set[int]:
    return {one.step for one in mlflow.MlflowClient().get_metric_history(run_id, "loss")}


def _find(run: str, digest: str) -> str | None:
    """The newest with these tags."""
    found = mlflow.search_runs(
        experiment_names=[EXPERIMENT],
        filter_string=f"tags.run = '{run}' and tags.digest = '{digest}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
        output_format="list",
    )
    return found[0].info.run_id if found else None


def _tags(run: Run, digest: str) -> dict[str, str]:
    return {"run": run.key, "digest": digest, **{k: str(v) for k, v in run._asdict().items()}}


@contextmanager
def _opened(
    tags: dict[str, str], run_id: str | None, tracking: Callable[[str], Kind]
) -> Iterator[Kind]:
    mlflow.set_system_metrics_sampling_interval(5)
    started = mlflow.start_run(
        run_id=run_id,
        run_name=tags["run"],
        tags=tags,
        log_system_metrics=run_id is None,
    )
    tracked = tracking(started.info.run_id)
    status, patience = "FAILED", PATIENCE
    try:
        yield tracked
        status = "FINISHED"
    except KeyboardInterrupt:
        status, patience = "KILLED", 0
        raise
    finally:
        client = mlflow.MlflowClient()
        tracked.waiting.append(lambda: client.set_terminated(tracked.run_id, status))
        tracked.finish(patience)
        with suppress(Exception):  # it would not be taken a second time
            mlflow.end_run(status)
