"""Errors of code that a run uses: the reason, the traceback, and the first step of a network."""

from __future__ import annotations

import errno
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from ianet import backbones
from ianet.blocks import squeeze_excitation
from ianet.options import NetworkOptions
from ianet.training.recipe import Recipe
from pipeline.cluster.resources import Share
from pipeline.config.settings import SettingsError
from pipeline.failures import CodeError, code_errors, explain
from pipeline.plan.plan import Plan, load_plan
from pipeline.plan.runs import Run
from pipeline.search import space
from pipeline.training import rehearsal, worker, workers
from pipeline.training.configuration import Configuration, Place, configure_trial
from pipeline.training.rehearsal import Rehearsals, rehearse, try_step

ROOT = Path(__file__).parents[1]
RECIPE = Recipe(height=32, width=16, epochs=1, batch=4, lr=0.1, weight_decay=0.0)
NETWORK = NetworkOptions("resnet18", block="squeeze_excitation", after={"stage1": {}})
CONFIGURATION = Configuration("", "32x16", False, 0, NETWORK, RECIPE)
KEYS = ["synthetic.base.quick.0", "synthetic.stage3.quick.0"]


def wrong_axis(self: Any, features: torch.Tensor) -> torch.Tensor:
    return features.mean(7)


def wrong_number(self: Any, features: torch.Tensor) -> torch.Tensor:
    height, width = features.shape
    return features[:height, :width]


def refuse_ratio(self: Any, features: torch.Tensor) -> torch.Tensor:
    raise ValueError("ratio is 0: it must be above 0")


def test_imagenets_weights_that_cannot_be_had_are_told_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a cluster each node downloads for itself."""

    def refuse(name: str) -> None:
        raise ConnectionError(f"the ImageNet weights of {name} could not be downloaded")

    monkeypatch.setattr(backbones, "_download", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    configuration = replace(CONFIGURATION, network=replace(NETWORK, weights="imagenet"))
    with pytest.raises(ConnectionError, match="the ImageNet weights of resnet18 could not be"):
        try_step(configuration)
    monkeypatch.chdir(ROOT)
    run = Run("market1501", "base", "cpu", 0)
    assert Rehearsals(load_plan()).configure(run.key).network.weights == "imagenet"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.delenv("IANET_OWN_RAY", raising=False)
    assert Rehearsals(load_plan()).configure(run.key).network.weights == "none"


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (wrong_axis, "IndexError: Dimension out of range (expected"),
        (wrong_number, "ValueError: too many values to unpack (expected 2)"),
    ],
)
def test_a_block_that_fails_is_told_with_its_line(
    forward: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(squeeze_excitation.Block, "forward", forward)
    with pytest.raises(CodeError) as info:
        try_step(CONFIGURATION)
    line = forward.__code__.co_firstlineno + 1
    source = Path(__file__).read_text().splitlines()[line - 1].strip()
    assert str(info.value).startswith(reason)
    assert str(info.value).endswith(f", in tests/test_code_errors.py, line {line}: {source}")
    assert "\n" not in str(info.value)
    assert info.value.text.startswith("Traceback (most recent call last):\n")
    assert f'test_code_errors.py", line {line}, in {forward.__name__}\n' in info.value.text
    again = pickle.loads(pickle.dumps(info.value))  # as it comes from a process of Ray
    assert (str(again), again.text) == (str(info.value), info.value.text)


def test_what_a_person_is_told_stays_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squeeze_excitation.Block, "forward", refuse_ratio)
    with pytest.raises(ValueError, match=r"^ratio is 0: it must be above 0$"):
        try_step(CONFIGURATION)


def test_a_network_that_is_right_passes() -> None:
    try_step(CONFIGURATION)
    triplet = Recipe(**{**RECIPE.__dict__, "triplet_margin": 0.3, "images_per_identity": 2})
    try_step(Configuration("", "32x16", False, 0, NetworkOptions("resnet18"), triplet))


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (OSError(28, "No space left on device"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (KeyError("sigma"), False),
        (KeyboardInterrupt(), True),
    ],
)
def test_losses_are_no_errors_of_code(error: BaseException, kept: bool) -> None:
    with pytest.raises(type(error) if kept else CodeError) as info, code_errors():
        raise error
    assert (info.value is error) == kept


def test_the_reason_of_an_error_outside_the_project() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        reason = str(explain(error))
    assert reason.startswith("JSONDecodeError: Expecting property name")
    assert ", in tests/test_code_errors.py, line " in reason
    assert reason.endswith(': json.loads("{")')


def test_an_error_of_code_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fail(function: Any, **options: Any) -> None:
        tries.append(function)
        raise CodeError("IndexError: wrong axis", "Traceback ...")

    monkeypatch.setattr(workers, "call", fail)
    place = Place("/storage", "/prepared", Share(1, 1, 0), 5.0)
    with pytest.raises(CodeError, match="wrong axis"):
        workers.run_one(CONFIGURATION, place, "a.b.c.0")
    assert len(tries) == 1
    assert tries[0].func is worker.train_alone


def test_a_network_is_remembered_by_what_it_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(rehearsal, "user_cache_path", lambda name: tmp_path / name)
    plan = load_plan()
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command[3:])
        rehearsals = Rehearsals(plan)
        mark = rehearsals.mark(rehearsals.configure(KEYS[0]))
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        failure = [KEYS[1], "IndexError: wrong axis", "Traceback ..."]
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(failure) + "\n")

    monkeypatch.setattr(subprocess, "run", run)
    other = "synthetic.stage3.quick.1"
    failures = rehearse([*KEYS, other], plan)
    # Another seed is the same network.
    assert calls == [[KEYS[0], other]]
    calls.clear()
    assert rehearse(KEYS[:1], plan) == {}
    assert calls == []
    failures = rehearse(KEYS, plan)
    assert list(failures) == [KEYS[1]]
    assert isinstance(failures[KEYS[1]], CodeError)
    assert str(failures[KEYS[1]]) == "IndexError: wrong axis"
    rehearsals = Rehearsals(plan)
    before = rehearsals.mark(rehearsals.configure(KEYS[0]))
    quick = plan.settings.recipes["quick"]
    training = {**quick.training, "label_smoothing": 0.25}
    recipes = {"quick": quick.model_copy(update={"training": training})}
    changed = Rehearsals(Plan(plan.settings.model_copy(update={"recipes": recipes}), {}))
    assert changed.mark(changed.configure(KEYS[0])) != before


def test_the_first_trial_of_a_search_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    plan = load_plan()
    search = plan.search("recipe")
    network = plan.settings.networks[search.network]
    recipe = plan.settings.recipes[search.recipe]
    trial = configure_trial(search, next(space.examples(search)), network, recipe)
    configuration = Rehearsals(plan).configure("search_recipe")
    assert trial.recipe == configuration.recipe
    assert (trial.dataset, trial.hold_out) == ("synthetic", True)
    assert configuration.network.backbone == "resnet18"
    assert (configuration.recipe.lr, configuration.recipe.batch) == (1e-4, 16)
    # What no first step depends on, so that a run of the same network is the same.
    assert (configuration.dataset, configuration.hold_out, configuration.seed) == ("", False, 0)


@pytest.mark.slow
def test_the_process_that_tries_says_what_failed(tmp_path: Path) -> None:
    """The command of `rehearse`, with a wrong option of a block."""
    for name in ("ianet", "pipeline", "experiments"):
        (tmp_path / name).symlink_to(ROOT / name)
    text = (ROOT / "params.yaml").read_text()
    assert "  stage3:\n    block: ia\n" in text
    text = text.replace(
        "  stage3:\n    block: ia\n", "  stage3:\n    block: ia\n    options: {x: 1}\n"
    )
    (tmp_path / "params.yaml").write_text(text)
    command = [sys.executable, "-m", "pipeline.training.rehearsal", *KEYS]
    variables = {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.run(
        command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True
    )
    [line] = process.stdout.splitlines()
    key, reason, traceback = json.loads(line)
    assert (key, traceback) == (KEYS[1], None)
    assert "an option of block ia is wrong" in reason
    assert len(list((tmp_path / "cache/ianet/rehearsals").iterdir())) == 1


def test_a_mistake_in_the_options_is_no_error_of_code(monkeypatch: pytest.MonkeyPatch) -> None:
    failure = [KEYS[1], "an option of block ia is wrong", None]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(Path, "exists", lambda path: "rehearsals" not in path.parts)
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, 0, json.dumps(failure)),
    )
    failures = rehearse(KEYS, load_plan())
    assert isinstance(failures[KEYS[1]], SettingsError)


def test_a_process_that_is_lost_names_what_was_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(rehearsal, "user_cache_path", lambda name: tmp_path / name)
    failure = json.dumps([KEYS[0], "IndexError: wrong axis", "Traceback ..."])
    monkeypatch.setattr(
        subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, -9, failure)
    )
    with pytest.raises(OSError, match=rf"^the first step of {KEYS[1]} was not tried to its end$"):
        rehearse(KEYS, load_plan())


def test_a_block_may_print_and_may_miss_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither ends the process that tries, nor disturbs its lines."""

    def step(configuration: Configuration) -> None:
        print("shape 4 x 64")
        if configuration.network.after:
            raise FileNotFoundError("mask.npy does not exist")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(rehearsal, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(rehearsal, "try_step", step)
    monkeypatch.setattr(sys, "argv", ["rehearsal", *KEYS])
    rehearsal.main()
    outcome = capsys.readouterr()
    assert json.loads(outcome.out) == [KEYS[1], "mask.npy does not exist", None]
    assert outcome.err == "shape 4 x 64\n" * 2


@pytest.mark.parametrize("call", ["mkdir", "touch"])
def test_a_full_disk_under_the_marks_ends_no_process(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second network is tried as well, and its failure is reported."""
    tries = []

    def step(configuration: Configuration) -> None:
        tries.append(configuration)
        if configuration.network.after:
            raise ValueError("crop is 9")

    def fail(path: Path, **_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(rehearsal, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(rehearsal, "try_step", step)
    monkeypatch.setattr(sys, "argv", ["rehearsal", *KEYS])
    monkeypatch.setattr(Path, call, fail)
    rehearsal.main()
    outcome = capsys.readouterr()
    assert json.loads(outcome.out) == [KEYS[1], "crop is 9", None]
    assert (len(tries), outcome.err) == (2, "")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CodeError("IndexError: wrong axis", "Traceback ..."), CodeError),
        (ValueError("crop is 9"), SettingsError),
    ],
)
def test_workers_after_a_failure_return_it(
    error: Exception, kind: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train starts workers again after any error, and an error that is returned ends none."""

    def train(configuration: Any, place: Any, name: str, **_: Any) -> Any:
        raise error

    monkeypatch.setattr(worker, "train", train)
    monkeypatch.setattr("ray.train.get_context", Mock)
    monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))
    place = Place(str(tmp_path), "", Share(1, 1, 0), 5)
    arguments = {"configuration": CONFIGURATION, "place": place, "name": "a.b.c.0"}
    with pytest.raises((CodeError, ValueError)):
        worker.train_together(arguments)
    outcome = worker.train_together(arguments)
    assert type(outcome) is kind
    assert str(outcome) == str(error)
    assert getattr(outcome, "text", None) == getattr(error, "text", None)
