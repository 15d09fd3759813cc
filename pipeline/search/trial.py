"""One trial of a search: a training in a function of Ray Tune, with one worker."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from pipeline.cluster.storage import SEARCHES, Storage
from pipeline.config.experiments import Search
from pipeline.config.settings import RecipeSettings
from pipeline.failures import CodeError, code_errors
from pipeline.search import space
from pipeline.search.results import SCORES, state_of
from pipeline.training.checkpoints import State, dump, parse
from pipeline.training.configuration import Place, configure_trial
from pipeline.training.progress import ProgressWriter, Report, read_progress
from pipeline.training.worker import COLUMNS, Training

STATE = "state"  # file of a checkpoint


@dataclass(frozen=True)
class Setting:
    """What all trials of a search share.

    Attributes:
        key: of the search, its folder in the storage.
        search: what is tried.
        network, recipe: entries of params.yaml, in which a trial's values take their places.
        place: where trials compute, and what each gets.
    """

    key: str
    search: Search
    network: dict[str, Any]
    recipe: RecipeSettings
    place: Place

    @property
    def epochs(self) -> int:
        """Epochs of a whole trial."""
        return int(self.recipe.training["epochs"])

    @property
    def progress(self) -> tuple[str, str]:
        """The folder of the progress, apart from Ray Tune's.

        Ray Tune copies its folder when a search resumes, and writes the copies over the files.
        """
        return SEARCHES, f"{self.key}.progress"

    @property
    def storage(self) -> Storage:
        """Of checkpoints and progress."""
        return Storage(self.place.storage)


def run_trial(values: dict[str, Any], setting: Setting) -> None:
    """Train with these values, and report each epoch with its scores on the held-out identities.

    A trial that was killed resumes from its last epoch. Values that do not fit together, and code
    that fails, are the result of a trial, as its "error" and, of code, its "traceback". Ray Tune
    would try them again if they were raised.
    """
    try:
        for report, state in _train(values, setting):
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / STATE).write_bytes(dump(state))
                tune.report(report, checkpoint=tune.Checkpoint.from_directory(folder))
    except (ValueError, CodeError) as error:
        text = error.text if isinstance(error, CodeError) else ""
        failure = {"error": str(error), "traceback": text}
        tune.report({"epoch": 0, setting.search.maximise: math.nan, **failure})


def _train(values: dict[str, Any], setting: Setting) -> Iterator[tuple[Report, State]]:
    """Yield the report and the state of each epoch that remains, or of the last if none does.

    The first report has a "warning" where the trial begins anew.

    Raises:
        ValueError: values that do not fit together.
        CodeError: Python code failed.
        OSError: the storage or the data cannot be used.
    """
    import torch

    from pipeline.scoring import score

    with code_errors():
        configuration = configure_trial(setting.search, values, setting.network, setting.recipe)
        state, warning = _read_state()
        training = Training(configuration, setting.place, state)
        if training.is_done:
            yield training.history[-1], training.state
            return
        device = torch.device("cuda" if setting.place.share.gpus else "cpu")
        for report in training.epochs(device, lambda part: None):
            with torch.compiler.set_stance("force_eager"):  # as trained runs are evaluated
                scores = score(
                    training.network, training.prepared, configuration.size, training.split, device
                ).summary()
            report |= {name: value for name, value in scores.items() if value is not None}
            yield report | ({"warning": warning} if warning else {}), training.state
            warning = ""


def _read_state() -> tuple[State | None, str]:
    """The state of the trial's last checkpoint, None where there is none, and a warning or "".

    Ray Tune deletes a checkpoint when the next one is written. A search that was killed at that
    moment may name the deleted one. Its trial begins anew, and ends with the same weights.

    Raises:
        OSError: the storage cannot be used; Ray Tune tries the trial again.
    """
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return None, ""
    try:
        with checkpoint.as_directory() as folder:
            return parse((Path(folder) / STATE).read_bytes()), ""
    except Exception as error:  # torch raises errors of many types for a damaged file
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise
        reason = str(error).partition("\n")[0].partition(". ")[0]  # of torch, without its advice
        return None, f"begins anew, as its checkpoint is gone or damaged: {reason}"


class TrialProgress(tune.Callback):
    """Writes the progress of a search: a list with an entry for each trial.

    An entry has "trial", the trial's name; "id", that of Ray Tune; "values"; "history", a report
    of each epoch; "state", None while the trial runs; "error"; "traceback", of code that failed;
    and "warning", why the trial began anew. The last three are "" where there is nothing to tell.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.entries: dict[str, dict[str, Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Ray Tune saves callbacks with a search. What happened meanwhile is in the storage.
        return {"setting": self.setting, "entries": {}}

    def setup(
        self,
        stop: Any = None,
        num_samples: int | None = None,
        total_num_samples: int | None = None,
        **_: Any,
    ) -> None:
        """Read what a search that is resumed has reported before."""
        progress = read_progress(self.setting.storage, *self.setting.progress) or []
        self.entries = {entry["id"]: entry for entry in progress}
        self.writer = ProgressWriter(self.setting.storage, *self.setting.progress)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial begins, or resumes."""
        self._entry(trial).update(state=None, error="", traceback="")
        self._write()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """An epoch is done; one that was repeated after a loss counts once."""
        entry = self._entry(trial)
        if "warning" in result:
            entry["warning"] = result["warning"]
        if "error" in result:
            entry.update(error=result["error"], traceback=result["traceback"])
        elif int(result["epoch"]) == len(entry["history"]) + 1:
            names = (*COLUMNS, *SCORES)
            entry["history"].append({name: result[name] for name in names if name in result})
        self._write()

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        """A trial is done, or was stopped early."""
        entry = self._entry(trial)
        entry["state"] = state_of(entry["history"], entry["error"], self.setting.epochs)
        self._write()

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """A trial failed."""
        entry = self._entry(trial)
        reason = str(trial.get_error() or "unknown").strip().splitlines()[-1]
        entry["error"] = reason[:300]
        entry["state"] = state_of(entry["history"], entry["error"], self.setting.epochs)
        self._write()

    def _entry(self, trial: Trial) -> dict[str, Any]:
        if trial.trial_id not in self.entries:
            name = space.label(self.setting.search, trial.config)
            same = [entry for entry in self.entries.values() if entry["values"] == trial.config]
            self.entries[trial.trial_id] = {
                "trial": f"{name} ({len(same) + 1})" if same else name,
                "id": trial.trial_id,
                "values": dict(trial.config),
                "history": [],
                "state": None,
                "error": "",
                "traceback": "",
                "warning": "",
            }
        return self.entries[trial.trial_id]

    def _write(self) -> None:
        self.writer.write(list(self.entries.values()))


class ResumableASHA(ASHAScheduler):
    """Early stopping by successive halving, which remembers the trials before a kill.

    Ray Tune saves its trials and not its scheduler.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(time_attr="epoch", max_t=setting.epochs, reduction_factor=2)
        self.setting = setting

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A trial of a resumed search brings the reports that it made before."""
        super().on_trial_add(tune_controller, trial)
        for report in _reports(self.setting, trial.trial_id):
            self.on_trial_result(tune_controller, trial, report)


def _reports(setting: Setting, trial: str) -> list[Report]:
    progress = read_progress(setting.storage, *setting.progress) or []
    reports: list[Report] = next(
        (entry["history"] for entry in progress if entry["id"] == trial), []
    )
    return reports
