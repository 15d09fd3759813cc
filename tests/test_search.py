"""Searches: their space, their table, and one for real that is killed and goes on."""

from __future__ import annotations

import json
import os
import signal
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
from ray.tune.schedulers import TrialScheduler

from pipeline import space, trials
from pipeline.experiments import Search
from pipeline.plan import Run
from pipeline.search import STATES, _begun, _tested
from pipeline.settings import RecipeSettings
from pipeline.storage import SEARCHES, TRAINING, Storage
from pipeline.trial import Halving
from pipeline.worker import PROGRESS

RATES = [1e-7, 1e-8, -1.0, 3e-3]  # an epoch with the last one is worse than none
STAGE3 = {"block": "ia", "after": {"stage3": {"sigma": [5, 10]}}}
RECIPE = RecipeSettings(training={"height": 64, "width": 32, "lr": 0.1})


def a_search(**changes: Any) -> Search:
    described: dict[str, Any] = {
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
    return Search.model_validate(described | changes)


SIGMA = {
    "network.after.stage3.sigma.0": {"values": [1, 2, 4]},
    "network.after.stage3.sigma.1": {"twice": "network.after.stage3.sigma.0"},
}
GRID: dict[str, Any] = {"algorithm": "grid", "trials": None}


def test_a_trials_values_are_laid_over_the_network_and_the_recipe() -> None:
    wanted = a_search(
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
    network, recipe = space.laid(wanted, values, STAGE3, RECIPE)
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
    assert space.drawn(of)["network.options.contexts"]["grid_search"] == [
        "[1]", "[2]", "[3]", "[1, 2]", "[1, 3]", "[2, 3]", "[1, 2, 3]",
    ]  # fmt: skip
    assert space.trials(of) == 7
    laid, _ = space.laid(of, {"network.options.contexts": "[1, 3]"}, {"options": {}}, RECIPE)
    assert laid == {"options": {"contexts": [1, 3]}}


def test_a_grid_has_each_combination_once() -> None:
    two = a_search(space={**SIGMA, "network.position": {"values": ["stage", "block"]}}, **GRID)
    assert space.trials(two) == 6
    assert set(space.drawn(two)) == {"network.after.stage3.sigma.0", "network.position"}


def test_draws_stay_within_their_ends() -> None:
    drawn = space.drawn(
        a_search(
            space={
                "training.batch": {"integers": [2, 3]},
                "training.lr": {"log_uniform": [0.001, 0.1]},
                "training.flip": {"uniform": [0.25, 0.5]},
            }
        )
    )
    assert {drawn["training.batch"].sample() for _ in range(50)} == {2, 3}
    assert all(0.001 <= drawn["training.lr"].sample() <= 0.1 for _ in range(50))
    assert all(0.25 <= drawn["training.flip"].sample() <= 0.5 for _ in range(50))


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
    ],
)
def test_wrong_spaces(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        a_search(**changes)


@pytest.mark.parametrize("place", ["network.after.stage2.sigma.0", "network.after.stage3.sigma.2"])
def test_a_place_that_the_network_lacks_is_told(place: str) -> None:
    wanted = a_search(space={place: {"values": [1]}})
    with pytest.raises(ValueError, match=f"{place} is no place in the network or the recipe"):
        space.laid(wanted, space.first(wanted), STAGE3, RECIPE)


def lines() -> pd.DataFrame:
    ends = [
        ({"epoch": 3, "mAP": 0.4}, None),
        ({"epoch": 1, "mAP": 0.9}, None),
        ({"epoch": 3, "mAP": 0.5}, None),
        (None, ValueError("first line\nlr is 7: too high")),
    ]
    return pd.DataFrame(
        trials.line(str(number), {"training.lr": 0.001 * number}, last, error, epochs=3)
        for number, (last, error) in enumerate(ends, 1)
    )


def test_how_trials_end_and_which_is_the_best() -> None:
    table = lines()
    assert table.state.tolist() == ["done", "stopped early", "done", "failed"]
    assert trials.best(table, a_search()) == {"training.lr": 0.003}
    assert trials.summary(table) == (
        "4 trials, 2 done, 1 stopped early, 1 failed\n  trial 4: lr is 7: too high"
    )


def test_plots_show_each_trial_that_did_not_fail() -> None:
    [panel] = trials.sensitivity(lines(), a_search()).axes
    _, done, stopped = panel.lines
    assert list(zip(*done.get_data(), strict=True)) == [(0.001, 0.4), (0.003, 0.5)]
    assert list(zip(*stopped.get_data(), strict=True)) == [(0.002, 0.9)]
    assert panel.get_xscale() == "log"
    axes = trials.parallel_coordinates(lines(), a_search()).axes[0]
    drawn = [line.get_ydata() for line in axes.lines[2:]]  # after the axes' own, by their score
    assert [list(one) for one in drawn] == [
        pytest.approx([0, 0]),
        pytest.approx([1, 0.2]),
        pytest.approx([0.6309298, 1]),  # log 2 / log 3
    ]


def test_panels_keep_their_height_above_values_that_are_written_out() -> None:
    named = [{}, {"arrangement": "cia-sia"}, {"arrangement": "parallel"}]
    table = lines().assign(**{"network.options": [json.dumps(named[row % 3]) for row in range(4)]})
    space = {"network.options": {"values": named}}
    figure = trials.sensitivity(table, a_search(space=space))
    figure.draw_without_rendering()  # lays the panels out
    [panel] = figure.axes
    assert 2 < panel.get_position().height * figure.get_figheight() < 3.4  # inches


@pytest.mark.parametrize("values", [[True, False], [1.0, "rsqrt_channels"]])
def test_values_may_be_of_any_type(tmp_path: Path, values: list[Any]) -> None:
    table = lines().assign(**{"network.options.scale": [*values, *values]})
    searched = a_search(space={"network.options.scale": {"values": values}})
    trials.write(tmp_path, searched, table, {"mAP": 0.5})
    written = pd.read_parquet(tmp_path / "trials.parquet")["network.options.scale"]
    assert written.astype(str).tolist() == [str(one) for one in [*values, *values]]
    _, best, _ = trials.parallel_coordinates(table, searched).axes[0].lines[2:]
    assert best.get_ydata()[0] in (0, 1)
    assert (tmp_path / "sensitivity.svg").exists()


def test_the_best_is_trained_on_all_identities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Asked(Exception):
        pass

    def configured(run: Any, network: Any, recipe: RecipeSettings) -> None:
        raise Asked(recipe.hold_out)

    monkeypatch.setattr("pipeline.driver.configured", configured)
    training = {"height": 64, "width": 32}
    recipe = RecipeSettings(hold_out=True, training=training)
    with pytest.raises(Asked, match="False"):
        _tested(Run("d", "n", "r", 0), {}, recipe, "sigma", 1, {}, Storage(str(tmp_path)))


def test_early_stopping_in_a_search_that_goes_on_knows_what_was_reported(tmp_path: Path) -> None:
    base = {
        "name": "sigma",
        "recipe": RecipeSettings(training={"height": 64, "width": 32, "epochs": 4}),
        "place": {"storage": str(tmp_path)},
    }
    curves = {
        "done": [0.2, 0.4, 0.5, 0.6],
        "stopped": [0.1, 0.9],  # at its first epoch; its worker had gone on
        "killed": [0.3, 0.2],
    }
    for name, curve in curves.items():
        told = [{"epoch": epoch, "mAP": one} for epoch, one in enumerate(curve, 1)]
        Storage(str(tmp_path)).write(json.dumps(told).encode(), TRAINING, f"sigma-{name}", PROGRESS)
    scheduler = Halving(base)
    scheduler.set_search_properties("mAP", "max")

    def add(name: str, *, ended: int = 0) -> Any:
        made = SimpleNamespace(
            trial_id=name, is_finished=lambda: ended > 0, last_result={"epoch": ended}
        )
        scheduler.on_trial_add(None, made)
        return made

    def stops(trial: Any, epoch: int, score: float) -> bool:
        decision = scheduler.on_trial_result(None, trial, {"epoch": epoch, "mAP": score})
        return bool(decision == TrialScheduler.STOP)

    add("done", ended=4)
    add("stopped", ended=1)
    killed = add("killed")
    # Halves: the median after epoch 1 is that of 0.1, 0.2, 0.3, and after epoch 2 of 0.2, 0.4.
    assert stops(add("low"), 1, 0.19)
    new = add("new")
    assert not stops(new, 1, 0.2)
    assert stops(new, 2, 0.29)
    assert not stops(killed, 3, 0.1)  # no epoch at which one is compared


def test_a_search_of_which_no_trial_was_saved_begins_anew(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    assert not _begun(storage, "sigma")
    storage.write(b"", SEARCHES, "sigma", "tuner.pkl")
    assert not _begun(storage, "sigma")
    for name, saved in (("01", []), ("02", [["{}", "{}"]])):
        state = json.dumps({"trial_data": saved}).encode()
        storage.write(state, SEARCHES, "sigma", f"experiment_state-{name}.json")
        assert _begun(storage, "sigma") == bool(saved)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    sheet = yaml.safe_load(Path("experiments/search_sigma.yaml").read_text())
    sheet |= {"network": "stage3", "dataset": "synthetic"}
    sheet["space"]["network.after.stage3.sigma.0"] = {"values": [4]}
    sheet["space"]["training.lr"] = {"values": RATES}
    sheet["scheduler"] = "asha"
    (made.folder / "experiments/search_sigma.yaml").write_text(yaml.safe_dump(sheet))
    # One trial at a time, so that it is known which falls behind.
    made.edit("params.yaml", "workers: auto", f"workers: {len(os.sched_getaffinity(0))}")
    made.run("python", "-m", "pipeline.plan")
    yield made
    assert made.killed() == [], "processes were left behind"


def test_a_killed_search_goes_on_and_a_failing_trial_costs_itself_only(project: Project) -> None:
    stage = "searches/dvc.yaml:search@sigma"
    process = project.start("dvc", "repro", stage)
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if line.startswith("trial "):
            break
    else:
        raise AssertionError("".join(said))
    _, finished, _ = line.split(maxsplit=2)
    [saved] = (project.folder / "build/searches").glob("sigma-*")

    def ends() -> list[str]:
        state = json.loads(max(saved.glob(STATES)).read_text())
        return [json.loads(trial)["status"] for trial, _ in state["trial_data"]]

    wait_for(lambda: "TERMINATED" in ends(), "Tune to save what has ended")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_for(lambda: project.killed(patience=0) == [], "the end of what the killed search left")
    output = project.run("dvc", "repro", stage)
    assert finished not in output
    assert "lr is -1.0: it must be above 0" in output

    found = project.folder / "results/searches/sigma"
    table = pd.read_parquet(found / "trials.parquet")
    # Ray Train leaves cores reserved of trials that are stopped; here the search went on.
    counts = table.state.value_counts()
    assert counts["failed"] == 1
    assert counts["stopped early"] >= 1
    assert f"4 trials, {counts['done']} done, {counts['stopped early']} stopped early, 1" in output
    assert (table.epoch == EPOCHS).equals(table.state == "done")
    assert table["training.lr"].tolist() == RATES
    pd.testing.assert_frame_equal(
        pd.read_csv(found / "trials.csv").drop(columns="error"), table.drop(columns="error")
    )
    done = table[table.state == "done"]
    best = done["training.lr"][done.mAP.idxmax()]
    adopted = yaml.safe_load((found / "best.yaml").read_text())
    assert adopted["networks"]["stage3-best"]["after"]["stage3"]["sigma"] == [4, 8]
    assert adopted["recipes"]["quick-best"]["training"]["lr"] == best
    assert 0 < json.loads((found / "scores.json").read_text())["mAP"] <= 1

    runs = project.tracked()
    [parent] = runs[runs["tags.run"] == "search-sigma"].to_dict("records")
    children = runs[runs["tags.mlflow.parentRunId"] == parent["run_id"]]
    states = children.set_index("tags.trial")["tags.state"]
    assert states.to_dict() == table.set_index("trial").state.to_dict()
    assert children.set_index("tags.trial").status[table.trial[2]] == "FAILED"
    assert parent["params.best.training.lr"] == str(best)
    client = mlflow.MlflowClient()
    whole = children.set_index("tags.trial").run_id[done.trial.iloc[0]]
    curve = client.get_metric_history(whole, "held-out_mAP")
    assert [metric.step for metric in curve] == list(range(1, EPOCHS + 1))
    assert curve[-1].value == pytest.approx(done.mAP.iloc[0])
    shown = {Path(one.path).name for one in client.list_artifacts(parent["run_id"], "search")}
    assert shown >= {"trials.csv", "best.yaml", "sensitivity.svg", "parallel.svg"}
    assert not list((project.folder / "build/training").glob("sigma-*"))
    assert project.repro(stage) == []
