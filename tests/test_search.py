"""Searches: their space, their table, and one for real that is killed and resumes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from project import EPOCHS, Project, wait_for
from pydantic import ValidationError
from ray import tune
from ray.tune.schedulers import TrialScheduler

from pipeline.cluster.resources import Share
from pipeline.config.experiments import Search
from pipeline.config.settings import RecipeSettings, SettingsError
from pipeline.search import results, space
from pipeline.search.run import _has_trials
from pipeline.search.trial import STATE, ResumableASHA, Setting, TrialProgress, run_trial
from pipeline.training.checkpoints import dump
from pipeline.training.configuration import Place
from pipeline.training.progress import FILE, read_progress

RATES = [1e-7, 1e-8, 1e30, 0.1]  # the third diverges, and the last one unlearns
STAGE3 = {"block": "ia", "after": {"stage3": {"sigma": [5, 10]}}}
RECIPE = RecipeSettings(training={"height": 64, "width": 32, "lr": 0.1})


def a_search(**changes: Any) -> Search:
    content: dict[str, Any] = {
        "kind": "search",
        "title": "",
        "caption": "",
        "dataset": "synthetic",
        "network": "stage3",
        "recipe": "quick",
        "algorithm": "random",
        "trials": 4,
        "space": {"training.lr": {"log_uniform": [0.001, 0.1]}},
    }
    return Search.model_validate(content | changes)


SIGMA = {
    "network.after.stage3.sigma.0": {"values": [1, 2, 4]},
    "network.after.stage3.sigma.1": {"twice": "network.after.stage3.sigma.0"},
}
GRID: dict[str, Any] = {"algorithm": "grid", "trials": None}


def test_a_trials_values_take_their_places_in_the_network_and_the_recipe() -> None:
    search = a_search(
        space={
            **SIGMA,
            "training.lr": {"uniform": [0.0, 1.0]},
            "network.options": {"values": [{"arrangement": "cia"}, {}]},
        }
    )
    values = {
        "network.after.stage3.sigma.0": 4,
        "training.lr": 0.5,
        "network.options": '{"arrangement": "cia"}',
    }
    network, recipe = space.apply(search, values, STAGE3, RECIPE)
    assert network == {
        "block": "ia",
        "after": {"stage3": {"sigma": [4, 8]}},
        "options": {"arrangement": "cia"},
    }
    assert recipe.training == {"height": 64, "width": 32, "lr": 0.5}
    assert STAGE3["after"] == {"stage3": {"sigma": [5, 10]}}
    assert RECIPE.training["lr"] == 0.1


def test_subsets_are_all_but_the_empty_one() -> None:
    of = a_search(space={"network.options.contexts": {"subsets": [1, 2, 3]}}, **GRID)
    assert space.parameter_space(of)["network.options.contexts"]["grid_search"] == [
        "[1]", "[2]", "[3]", "[1, 2]", "[1, 3]", "[2, 3]", "[1, 2, 3]",
    ]  # fmt: skip
    assert space.count_trials(of) == 7
    network, _ = space.apply(of, {"network.options.contexts": "[1, 3]"}, {"options": {}}, RECIPE)
    assert network == {"options": {"contexts": [1, 3]}}


def test_a_grid_has_each_combination_once() -> None:
    two = a_search(space={**SIGMA, "network.position": {"values": ["stage", "block"]}}, **GRID)
    assert space.count_trials(two) == 6
    assert set(space.parameter_space(two)) == {"network.after.stage3.sigma.0", "network.position"}


def test_draws_stay_within_their_ends() -> None:
    parameters = space.parameter_space(
        a_search(
            space={
                "training.batch": {"integers": [2, 3]},
                "training.lr": {"log_uniform": [0.001, 0.1]},
                "training.flip": {"uniform": [0.25, 0.5]},
            }
        )
    )
    assert {parameters["training.batch"].sample() for _ in range(50)} == {2, 3}
    assert all(0.001 <= parameters["training.lr"].sample() <= 0.1 for _ in range(50))
    assert all(0.25 <= parameters["training.flip"].sample() <= 0.5 for _ in range(50))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"lr": {"values": [1]}}}, "'lr' must start with network. or training."),
        (
            {"space": {"training.height": {"values": [64]}}},
            "all trials have the recipe's size and epochs",
        ),
        ({"space": {"training.lr": {"twice": "training.batch"}}}, "which is not searched"),
        (GRID, "a grid cannot count training.lr: give its values"),
        ({"trials": None}, "trials must be given, but not with a grid"),
        ({**GRID, "space": SIGMA, "trials": 3}, "trials must be given, but not with a grid"),
        ({"space": {"training.lr": {"log_uniform": [0, 1]}}}, "greater than 0"),
        ({"space": {"training.batch": {"integers": [20, 1]}}}, "the first must be the smaller"),
        ({"space": {"training.flip": {"uniform": [1, 0]}}}, "the first must be the smaller"),
    ],
)
def test_wrong_spaces(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        a_search(**changes)


@pytest.mark.parametrize("place", ["network.after.stage2.sigma.0", "network.after.stage3.sigma.2"])
def test_a_place_that_the_network_lacks_is_refused(place: str) -> None:
    search = a_search(space={place: {"values": [1]}})
    with pytest.raises(SettingsError, match=f"{place} is no place in the network or the recipe"):
        space.apply(search, next(space.examples(search)), STAGE3, RECIPE)


def test_text_that_is_no_json_is_a_value_like_others() -> None:
    search = a_search(space={"training.schedule": {"values": ["", "[", "step"]}}, **GRID)
    with pytest.raises(json.JSONDecodeError):
        space.all_values(search, {"training.schedule": "["})
    assert space.all_values(search, {"training.schedule": ""}) == {"training.schedule": ""}


def test_trials_are_called_by_what_they_try() -> None:
    one = a_search(space={**SIGMA, "training.lr": {"uniform": [0.0, 1.0]}})
    values = {"network.after.stage3.sigma.0": 8, "training.lr": 0.00012345}
    assert space.label(one, values) == "sigma_1=8, sigma_2=16, lr=0.000123"
    both = a_search(
        space={
            "network.after.stage2.sigma.0": {"values": [1]},
            "network.after.stage3.sigma.0": {"values": [1]},
        }
    )
    values = {"network.after.stage2.sigma.0": 10, "network.after.stage3.sigma.0": 5}
    assert space.label(both, values) == "stage2.sigma_1=10, stage3.sigma_1=5"


def a_trial(number: int, scores: list[float], error: str = "") -> dict[str, Any]:
    """The progress of a trial with these mAP, an epoch each, of three."""
    history = [
        {"epoch": epoch, "mAP": score, "seconds": 2.0} for epoch, score in enumerate(scores, 1)
    ]
    return {
        "trial": f"lr={number}",
        "id": str(number),
        "values": {"training.lr": 0.001 * number},
        "history": history,
        "state": results.state_of(history, error, epochs=3),
        "error": error,
    }


def four_trials() -> pd.DataFrame:
    trials = [
        a_trial(1, [0.1, 0.2, 0.4]),
        a_trial(2, [0.9]),
        a_trial(3, [0.1, 0.2, 0.5]),
        a_trial(4, [], "lr is 7: too high"),
    ]
    return results.table(trials)


def test_how_trials_end_and_which_is_the_best() -> None:
    table = four_trials()
    assert table.state.tolist() == ["done", "stopped early", "done", "failed"]
    assert table.epoch.tolist() == [3, 1, 3, 0]
    assert table.seconds.tolist() == [6, 2, 6, 0]
    assert table.mAP.tolist()[:3] == [0.4, 0.9, 0.5]
    assert results.best_trial(table, a_search()) == 2
    assert results.summarise(table) == (
        "4 trials, 2 done, 1 stopped early, 1 failed\n  trial lr=4: lr is 7: too high"
    )
    with pytest.raises(ValueError, match="all 1 trials failed, the first: lr is 7"):
        results.table([a_trial(1, [], "lr is 7")])


def test_plots_show_each_trial_that_did_not_fail() -> None:
    figure = results.sensitivity(four_trials(), a_search(title="A search"))
    assert figure.get_suptitle() == ""  # the page has the title
    [panel] = figure.axes
    _, done, stopped = panel.lines
    assert list(zip(*done.get_data(), strict=True)) == [(0.001, 0.4), (0.003, 0.5)]
    assert list(zip(*stopped.get_data(), strict=True)) == [(0.002, 0.9)]
    assert panel.get_xscale() == "log"
    axes = results.parallel_coordinates(four_trials(), a_search()).axes[0]
    lines = [line.get_ydata() for line in axes.lines[2:]]  # after the axes' own, by their score
    assert [list(one) for one in lines] == [
        pytest.approx([0, 0]),
        pytest.approx([1, 0.2]),
        pytest.approx([0.6309298, 1]),  # log 2 / log 3
    ]


def test_panels_keep_their_height_above_values_that_are_written_out() -> None:
    named = [{}, {"arrangement": "cia-sia"}, {"arrangement": "parallel"}]
    table = four_trials().assign(
        **{"network.options": [json.dumps(named[row % 3]) for row in range(4)]}
    )
    space = {"network.options": {"values": named}}
    figure = results.sensitivity(table, a_search(space=space))
    figure.draw_without_rendering()  # lays the panels out
    [panel] = figure.axes
    assert 2 < panel.get_position().height * figure.get_figheight() < 3.4  # inches


@pytest.mark.parametrize("values", [[True, False], [1.0, "rsqrt_channels"]])
def test_values_may_be_of_any_type(tmp_path: Path, values: list[Any]) -> None:
    table = four_trials().assign(**{"network.options.scale": [*values, *values]})
    searched = a_search(space={"network.options.scale": {"values": values}})
    results.write(tmp_path, searched, table)
    written = pd.read_parquet(tmp_path / "trials.parquet")["network.options.scale"]
    assert written.astype(str).tolist() == [str(one) for one in [*values, *values]]
    _, best, _ = results.parallel_coordinates(table, searched).axes[0].lines[2:]
    assert best.get_ydata()[0] in (0, 1)
    assert (tmp_path / "sensitivity.svg").exists()


def test_a_null_is_a_value(tmp_path: Path) -> None:
    search = a_search(space={"training.block_lr": {"values": [None, 10.0]}})
    trials = [a_trial(1, [0.1, 0.2, 0.4]), a_trial(2, [0.1, 0.2, 0.5]), a_trial(3, [0.1, 0.2, 0.3])]
    for trial, value in zip(trials, [10.0, None, 10.0], strict=True):
        trial["values"] = {"training.block_lr": value}
    table = results.table(trials)
    assert table["training.block_lr"].tolist() == [10.0, "null", 10.0]
    assert results.best_trial(table, search) == 1
    assert space.label(search, trials[1]["values"]) == "block_lr=null"
    results.write(tmp_path, search, table)
    lines = (tmp_path / "trials.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines] == ["training.block_lr", "10.0", "null", "10.0"]


def a_setting(folder: Path, **changes: Any) -> Setting:
    """A search of trials with four epochs, in a storage."""
    training = {"height": 64, "width": 32, "epochs": 4, "batch": 8, "weight_decay": 0.0}
    recipe = RecipeSettings(training=training)
    place = Place(str(folder), "prepared", Share(1, 1, 0), 5)
    return Setting("sigma.0", a_search(**changes), STAGE3, recipe, place)


def write_progress(setting: Setting, curves: dict[str, list[float]]) -> None:
    trials = [
        {
            "id": name,
            "history": [{"epoch": epoch, "mAP": score} for epoch, score in enumerate(curve, 1)],
        }
        for name, curve in curves.items()
    ]
    setting.storage.write(json.dumps(trials).encode(), *setting.progress, FILE)


def test_early_stopping_in_a_search_that_resumes_knows_what_was_reported(tmp_path: Path) -> None:
    setting = a_setting(tmp_path)
    write_progress(setting, {"done": [0.2, 0.4, 0.5, 0.6], "stopped": [0.1], "killed": [0.3, 0.2]})
    scheduler = ResumableASHA(setting)
    scheduler.set_search_properties("mAP", "max")

    def add(name: str) -> Any:
        trial = SimpleNamespace(trial_id=name)
        scheduler.on_trial_add(None, trial)
        return trial

    def stops(trial: Any, epoch: int, score: float) -> bool:
        decision = scheduler.on_trial_result(None, trial, {"epoch": epoch, "mAP": score})
        return bool(decision == TrialScheduler.STOP)

    add("done")
    add("stopped")
    killed = add("killed")
    # Halves: the median after epoch 1 is that of 0.1, 0.2, 0.3, and after epoch 2 of 0.2, 0.4.
    assert stops(add("low"), 1, 0.19)
    new = add("new")
    assert not stops(new, 1, 0.2)
    assert stops(new, 2, 0.29)
    assert not stops(killed, 3, 0.1)  # no epoch at which trials are compared


def test_progress_holds_each_epoch_once_and_how_a_trial_ended(tmp_path: Path) -> None:
    setting = a_setting(tmp_path)
    trial: Any = SimpleNamespace(
        trial_id="a", config={"training.lr": 0.01}, get_error=lambda: "first\nlast line"
    )
    twin: Any = SimpleNamespace(trial_id="b", config={"training.lr": 0.01})

    def report(epoch: int) -> dict[str, Any]:
        return {"epoch": epoch, "mAP": epoch / 10, "seconds": 1.0, "of Ray Tune": "left out"}

    progress = TrialProgress(setting)
    progress.setup()
    progress.on_trial_start(0, [], trial)
    progress.on_trial_result(0, [], trial, report(1))
    progress.on_trial_result(0, [], trial, report(2))
    progress.on_trial_start(0, [], twin)
    # A resumed search reads what was written, and a trial that was killed repeats an epoch.
    resumed = TrialProgress(setting)
    resumed.setup()
    resumed.on_trial_result(0, [], trial, report(2))
    resumed.on_trial_result(0, [], trial, report(3))
    resumed.on_trial_complete(0, [], trial)
    failure = {"error": "lr is 7", "traceback": "Traceback ..."}
    resumed.on_trial_result(0, [], twin, {"epoch": 0, "mAP": math.nan, **failure})
    resumed.on_trial_complete(0, [], twin)
    first, second = read_progress(setting.storage, *setting.progress)
    assert [one["epoch"] for one in first["history"]] == [1, 2, 3]
    assert first["history"][2] == {"epoch": 3, "mAP": 0.3, "seconds": 1.0}
    assert (first["trial"], first["state"], first["error"]) == ("lr=0.01", "stopped early", "")
    assert (second["trial"], second["state"]) == ("lr=0.01 (2)", "failed")
    assert (second["history"], second["error"]) == ([], "lr is 7")
    assert (first["traceback"], second["traceback"]) == ("", "Traceback ...")
    resumed.on_trial_error(0, [], trial)
    first, _ = read_progress(setting.storage, *setting.progress)
    assert (first["state"], first["error"]) == ("failed", "last line")
    resumed.on_trial_start(0, [], trial)  # by a later command
    resumed.on_trial_result(0, [], trial, {**report(1), "warning": "begins anew"})
    resumed.on_trial_complete(0, [], trial)
    resumed.on_trial_start(0, [], twin)
    first, second = read_progress(setting.storage, *setting.progress)
    assert (first["state"], first["error"]) == ("stopped early", "")
    assert (first["warning"], len(first["history"])) == ("begins anew", 3)
    assert (second["error"], second["traceback"], second["warning"]) == ("", "", "")


class OneEpoch:
    """A training of which an epoch remains."""

    is_done = False
    network = split = prepared = None

    def __init__(self, configuration: Any, place: Any, state: Any) -> None:
        self.start = state

    def epochs(self, device: Any, on_part: Any) -> Iterator[dict[str, Any]]:
        for epoch in (1, 2):
            yield {"epoch": epoch, "start": self.start}

    @property
    def state(self) -> dict[str, Any]:
        return {"fit": 5}


class Broken(OneEpoch):
    """A training whose block fails."""

    def epochs(self, device: Any, on_part: Any) -> Iterator[dict[str, Any]]:
        raise IndexError("wrong axis")


def report_trial(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    training: type[OneEpoch],
    checkpoint: bytes | None = None,
    rate: float = 0.01,
) -> list[dict[str, Any]]:
    """What a trial reports to Ray Tune, with the checkpoint that Ray Tune has."""
    reports: list[dict[str, Any]] = []
    start = None
    if checkpoint is not None:
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / STATE).write_bytes(checkpoint)
        start = tune.Checkpoint.from_directory(folder / "checkpoint")
    monkeypatch.setattr(tune, "get_checkpoint", lambda: start)
    monkeypatch.setattr(tune, "report", lambda report, **_: reports.append(report))
    monkeypatch.setattr("pipeline.search.trial.Training", training)
    scores = SimpleNamespace(summary=lambda: {"mAP": 0.5, "mINP": None})
    monkeypatch.setattr("pipeline.scoring.score", lambda *_: scores)
    run_trial({"training.lr": rate}, a_setting(folder))
    return reports


def test_a_trial_whose_checkpoint_is_damaged_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = report_trial(tmp_path, monkeypatch, OneEpoch, b"damaged")
    reason = "begins anew, as its checkpoint is gone or damaged: "
    assert first.pop("warning") == f"{reason}Weights only load failed"
    assert first == {"epoch": 1, "start": None, "mAP": 0.5}
    assert second == {"epoch": 2, "start": None, "mAP": 0.5}


@pytest.mark.parametrize("state", [None, {"fit": 3}])
def test_a_trial_with_its_checkpoint_or_before_one_warns_of_nothing(
    state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = None if state is None else dump(state)
    reports = report_trial(tmp_path, monkeypatch, OneEpoch, content)
    assert reports == [{"epoch": epoch, "start": state, "mAP": 0.5} for epoch in (1, 2)]


def test_a_trial_reports_the_traceback_of_code_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [report] = report_trial(tmp_path, monkeypatch, Broken)
    assert math.isnan(report["mAP"])
    line = 'raise IndexError("wrong axis")'
    assert report["error"].startswith("IndexError: wrong axis, in tests/test_search.py, line ")
    assert report["error"].endswith(f": {line}")
    first, *_, place, code, last = report["traceback"].splitlines()
    assert first == "Traceback (most recent call last):"
    assert place.startswith(f'  File "{__file__}", line ')
    assert (code, last) == (f"    {line}", "IndexError: wrong axis")


def test_a_trial_of_wrong_values_needs_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [report] = report_trial(tmp_path, monkeypatch, OneEpoch, rate=-1)
    assert "lr is -1" in report["error"]
    assert report["traceback"] == ""


def test_a_search_of_which_no_trial_was_saved_begins_anew(tmp_path: Path) -> None:
    setting = a_setting(tmp_path)
    assert not _has_trials(setting)
    write_progress(setting, {})
    assert not _has_trials(setting)
    write_progress(setting, {"a": []})
    assert _has_trials(setting)


@pytest.fixture
def project(prepared: Project, tmp_path: Path) -> Iterator[Project]:
    project = prepared.copy(tmp_path / "project")
    sheet = yaml.safe_load(Path("experiments/search_sigma.yaml").read_text())
    sheet |= {"network": "stage3", "dataset": "synthetic"}
    sheet["space"]["network.after.stage3.sigma.0"] = {"values": [4]}
    sheet["space"]["training.lr"] = {"values": RATES}
    sheet["scheduler"] = "asha"
    (project.folder / "experiments/search_sigma.yaml").write_text(yaml.safe_dump(sheet))
    project.run("python", "-m", "pipeline.plan")
    yield project
    assert project.killed() == [], "processes were left behind"


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """The lines of a search up to that of a trial with a text."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if line.startswith("trial ") and text in line:
            return lines
    raise AssertionError("".join(lines))


def test_a_killed_search_resumes_and_a_failing_trial_costs_itself_only(project: Project) -> None:
    stage = "searches/dvc.yaml:search@sigma"
    committed = project.folder / "results/searches/sigma/best.yaml"
    committed.parent.mkdir(parents=True)
    committed.write_text("results of before\n")
    # SIGTERM to the command alone ends DVC and the stage, too.
    process = project.start("python", "-m", "pipeline.search", "sigma")
    read_until(process, f": epoch 1 of {EPOCHS}, mAP")
    process.terminate()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.endswith("stopped; the same command resumes from here\n")
    assert "Traceback" not in output
    wait_for(lambda: project.killed(patience=0) == [], "the end of the search that was stopped")

    process = project.start("dvc", "repro", stage)
    finished = read_until(process, ": done")[-1].split(": done")[0]
    assert project.listens_on() == {"127.0.0.1"}
    assert finished.startswith("trial sigma_1=4, sigma_2=8, lr=")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: project.killed(patience=0) == [], "the end of what the killed search left")
    assert committed.read_text() == "results of before\n"
    output = project.run("python", "-m", "pipeline.search", "sigma")
    assert finished not in output
    assert "the loss is not finite in epoch" in output
    assert (project.folder / "results/report.html").exists()

    folder = project.folder / "results/searches/sigma"
    table = pd.read_parquet(folder / "trials.parquet")
    counts = table.state.value_counts()
    assert counts["failed"] == 1
    assert counts["stopped early"] >= 1
    assert f"4 trials, {counts['done']} done, {counts['stopped early']} stopped early, 1" in output
    assert (table.epoch == EPOCHS).equals(table.state == "done")
    assert sorted(table["training.lr"]) == sorted(RATES)
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "trials.csv").drop(columns="error"), table.drop(columns="error")
    )
    done = table[table.state == "done"]
    best = done["training.lr"][done.mAP.idxmax()]
    adopted = yaml.safe_load((folder / "best.yaml").read_text())
    assert adopted["networks"]["stage3-best"]["after"]["stage3"]["sigma"] == [4, 8]
    assert adopted["recipes"]["quick-best"]["training"]["lr"] == best
    scores = json.loads((folder / "scores.json").read_text())
    assert 0 < scores["test"]["mAP"] <= 1
    assert scores["commit"] == "unknown"  # as the copy has no commit

    runs = project.tracked()
    [parent] = runs[runs["tags.run"] == "search-sigma"].to_dict("records")
    children = runs[runs["tags.mlflow.parentRunId"] == parent["run_id"]]
    states = children.set_index("tags.trial")["tags.state"]
    assert states.to_dict() == table.set_index("trial").state.to_dict()
    bad = table.trial[table.state == "failed"].item()
    failure = children.set_index("tags.trial").loc[bad]
    assert failure.status == "FAILED"
    assert failure["tags.failure"] == table.error[table.state == "failed"].item()
    assert parent["params.best.training.lr"] == str(best)
    client = mlflow.MlflowClient()
    run_id = children.set_index("tags.trial").run_id[done.trial.iloc[0]]
    curve = client.get_metric_history(run_id, "held-out_mAP")
    assert [metric.step for metric in curve] == list(range(1, EPOCHS + 1))
    assert curve[-1].value == pytest.approx(done.mAP.iloc[0])
    names = {Path(one.path).name for one in client.list_artifacts(parent["run_id"], "search")}
    assert names >= {"trials.csv", "best.yaml", "sensitivity.svg", "parallel.svg"}
    assert not list((project.folder / "build/trainings").glob("sigma.*"))
    assert project.repro(stage) == []
