"""The simulation of benchmarks/scaling.py, on cases worked out by hand."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from scaling import IMAGES, Assumed, of_paper, phases_of  # noqa: E402
from simulation import (  # noqa: E402
    CORES,
    DISK,
    LOCK,
    PHASES,
    PLACES,
    WORKER_STARTS,
    Step,
    Work,
    bounds,
    computed,
    here,
    simulate,
    there,
)

from pipeline.plan import load_plan, runs_of  # noqa: E402

MANY = 1000
CORE = {CORES: 1.0}


def test_three_equal_runs_on_two_gpus() -> None:
    done = simulate([[Step(10, PLACES)]] * 3, {PLACES: 2}, MANY)
    assert done.ended == [10, 10, 20]
    assert done.busy == {PLACES: 30}


def test_a_lock_is_passed_on_in_turn() -> None:
    runs = [[Step(1, LOCK), Step(3, PLACES)]] * 4
    done = simulate(runs, {PLACES: 4, LOCK: 1}, MANY)
    assert done.ended == [4, 5, 6, 7]
    # However many GPUs there are, a run a second.
    assert bounds([[Step(1, LOCK), Step(3, PLACES)]] * 512, {PLACES: 512, LOCK: 1}) == {
        "longest run": 4,
        PLACES: 3,
        LOCK: 512,
    }


def test_a_step_hands_on_what_the_next_one_holds_too() -> None:
    done = simulate([[Step(1, PLACES), Step(2, PLACES)]] * 2, {PLACES: 1}, MANY)
    assert done.ended == [3, 6]
    done = simulate([[Step(1, PLACES), Step(2), Step(1, PLACES)]] * 2, {PLACES: 1}, MANY)
    assert done.ended == [4, 5]


def test_all_that_share_slow_down_alike() -> None:
    assert simulate([[Step(2, None, CORE)]] * 3, {CORES: 2}, MANY).ended == [3, 3, 3]
    # The second has the core to itself once the first is done.
    assert simulate([[Step(1, None, CORE)], [Step(3, None, CORE)]], {CORES: 1}, 2).ended == [2, 4]
    # Two threads on one core.
    assert simulate([[Step(4, None, {CORES: 2})]], {CORES: 1}, 1).seconds == 8
    # What it wants of two things: the scarcer one counts.
    both = [[Step(4, None, {CORES: 1, DISK: 0.5})]] * 4
    assert simulate(both, {CORES: 2, DISK: 1}, MANY).ended == [8] * 4
    assert simulate(both, {CORES: 4, DISK: 0.5}, MANY).ended == [16] * 4


def test_one_more_starts_up_while_another_trains() -> None:
    runs = [[Step(2), Step(5, PLACES)]] * 3
    assert simulate(runs, {PLACES: 1}, 1).ended == [7, 14, 21]
    assert simulate(runs, {PLACES: 1}, 2).ended == [7, 12, 17]


def test_the_longest_run_is_waited_for() -> None:
    runs = [[Step(100, PLACES)], *[[Step(1, PLACES)]] * 10]
    assert simulate(runs, {PLACES: 512}, MANY).seconds == 100
    assert bounds(runs, {PLACES: 512})["longest run"] == 100


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_and_no_bound_beaten(seed: int) -> None:
    drawn = random.Random(seed)
    resources = {PLACES: 3, LOCK: 1, CORES: 2, DISK: 0.5}
    runs = [
        [
            Step(
                drawn.expovariate(1),
                drawn.choice([None, PLACES, LOCK]),
                {drawn.choice([CORES, DISK]): drawn.random()},
            )
            for _ in range(5)
        ]
        for _ in range(30)
    ]
    done = simulate(runs, resources, 8)
    wanted = dict.fromkeys(resources, 0.0)
    for step in (step for run in runs for step in run):
        for name, part in step.uses.items():
            wanted[name] += part * step.seconds
    for name in (CORES, DISK):
        assert done.busy[name] == pytest.approx(wanted[name])
    for name, there_is in resources.items():
        assert done.busy[name] <= there_is * done.seconds * (1 + 1e-9)
    for name, least in bounds(runs, resources).items():
        assert done.seconds >= least * (1 - 1e-9), name


def test_a_phase_waits_and_computes() -> None:
    assert computed({"seconds": 3, "cpu": 1}, None) == [Step(2), Step(1, None, CORE)]
    assert computed({"seconds": 3, "cpu": 0}, LOCK) == [Step(3, LOCK)]
    assert computed({"seconds": 2, "cpu": 3}, LOCK) == [Step(0, LOCK), Step(2, LOCK, {CORES: 1.5})]


def of(where: str) -> set[str]:
    return {phase.name for phase in PHASES if phase.where == where}


def test_a_run_here_takes_what_was_measured() -> None:
    phases = {phase.name: {"seconds": 2.0, "cpu": 1.0} for phase in PHASES}
    resources = {PLACES: 1, CORES: 2, LOCK: 1}
    alone = simulate([here(phases, training=2)], resources, 1)
    assert alone.seconds == 2 * len(PHASES)
    assert alone.busy[CORES] == len(PHASES)
    assert alone.busy[LOCK] == 2 * len(of("lock"))
    longer = simulate([here(phases, training=12)], resources, 1)
    assert longer.seconds == alone.seconds + 10
    assert longer.busy[CORES] == alone.busy[CORES] + 5


def test_a_run_on_a_gpu() -> None:
    phases = {phase.name: {"seconds": 1.0, "cpu": 0.5} for phase in PHASES}
    work = Work(
        epochs=10, trained=1000, scored=600, image=1000, checkpoint=10**6, speed=100, forward=3,
        disk=10**6, following=0.25,
    )  # fmt: skip
    phases[WORKER_STARTS]["seconds"] = 3.0
    resources = {PLACES: 1, CORES: 1, LOCK: 1, DISK: 1}
    done = simulate([there(phases, work)], resources, 1)
    started = len(of("submit") | of("lock"))
    # A worker starts, images are read, 10 epochs of 10 s and as many checkpoints of a second; a
    # worker starts, images are read and scored.
    on_gpus = (len(of("worker")) + 2 + 1 + 100 + 10) + (3 + 0.6 + 2)
    assert done.seconds == pytest.approx(started + on_gpus)
    assert done.busy == pytest.approx(
        {
            PLACES: on_gpus,
            CORES: 0.5 * started + 0.25 * 110,
            LOCK: len(of("lock")),
            DISK: 1 + 10 + 0.6,
        }
    )


def test_phases_of_a_trace() -> None:
    """Every phase a second, in which the machine computes half of one; two checkpoints of 0.1."""
    dvc, worker = 1, 7
    at, lines = 0.0, []

    def tell(what: str, pid: int, seconds: float) -> None:
        nonlocal at
        at += seconds
        lines.append({"what": what, "pid": pid, "at": at, "cpu": at / 2})

    tell("start dvc repro", dvc, 0)
    for phase in PHASES:
        if phase.where == "save":
            continue
        if phase.where != "train":
            what = "start /ray/default_worker.py" if phase.until == "start worker" else phase.until
            tell(what, worker if phase.where == "worker" else dvc, 1)
            continue
        for wait in (0.3, 0.5):
            tell("> torch.save", worker, wait)
            tell("< torch.save", worker, 0.05)
            tell("> ray.train.report", worker, 0)
            tell("< ray.train.report", worker, 0.05)
    found = phases_of(lines)
    shorter: dict[str, Any] = dict.fromkeys(of("train"), 0.8) | dict.fromkeys(of("save"), 0.2)
    for phase in PHASES:
        seconds = shorter.get(phase.name, 1)
        assert found[phase.name] == pytest.approx({"seconds": seconds, "cpu": seconds / 2})


def test_the_runs_of_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    runs = runs_of(of_paper(load_plan()).evaluations())
    # Tables 4a to 4f have 20 networks; Table 5 has 8 more, on Market-1501; CUHK03 has 20 splits.
    assert Counter(run.dataset for run in runs) == {
        "market1501": 3 * 28,
        "dukemtmc": 3 * 20,
        "msmt17": 3,
        "cuhk03-labeled": 20,
        "cuhk03-detected": 20,
    }
    assert {run.recipe for run in runs} == {"paper"}
    assert set(IMAGES) == {run.dataset for run in runs}
    assert Assumed().images_per_second == 938
