"""When runs are done that share GPUs, cores, a lock and a disk.

A run is a chain of steps. A step holds one of a resource, for which it waits its turn, or uses a
part of one that all share, or both: GPUs and a lock are held, cores and a disk are used. Where the
steps of a moment want more than there is, all that share it slow down alike.

`here` and `there` make the chain of a run out of its measured phases: on this machine, and on a
cluster of GPUs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

CLOSE = 1e-9  # seconds: rounding

# Resources. A place is what trains one run: a GPU, or here what Ray calls a CPU.
PLACES, CORES, LOCK, DISK = "places", "cores", "DVC's lock", "disk"


@dataclass(frozen=True)
class Step:
    """A part of a run.

    Attributes:
        seconds: it takes where nothing is short.
        holds: what it has one of to itself; a step before it that had it hands it on.
        uses: how much of what is shared it takes meanwhile.
    """

    seconds: float
    holds: str | None = None
    uses: Mapping[str, float] = field(default_factory=dict)


class Outcome(NamedTuple):
    """`ended`: when each run was done; `busy`: of each resource, how much of it times seconds."""

    ended: list[float]
    busy: dict[str, float]

    @property
    def seconds(self) -> float:
        return max(self.ended)


def simulate(
    runs: Sequence[Sequence[Step]], resources: Mapping[str, float], at_a_time: int
) -> Outcome:
    """Work off runs in their order, from event to event.

    Args:
        runs: one at least, each with one step at least.
        resources: how much there is of each.
        at_a_time: runs that are under way, whether they wait or not.
    """
    now, begun = 0.0, 0
    free, busy = dict(resources), dict.fromkeys(resources, 0.0)
    place: dict[int, int] = {}  # of each run under way, its step
    left: dict[int, float] = {}  # seconds of that step at full speed, where it need not wait
    queue: list[int] = []  # those that wait for what their step holds
    ended = [0.0] * len(runs)

    def enter(run: int, number: int, held: str | None) -> None:
        place[run] = number
        wanted = runs[run][number].holds
        if held is not None and held != wanted:
            free[held] += 1
        if wanted is None or wanted == held:
            left[run] = runs[run][number].seconds
        else:
            queue.append(run)

    while begun < len(runs) or place:
        while begun < len(runs) and len(place) < at_a_time:
            enter(begun, 0, None)
            begun += 1
        for run in list(queue):
            step = runs[run][place[run]]
            if free[str(step.holds)] >= 1:
                free[str(step.holds)] -= 1
                queue.remove(run)
                left[run] = step.seconds
        steps = {run: runs[run][place[run]] for run in left}
        wanted: Counter[str] = Counter()
        for step in steps.values():
            wanted.update(step.uses)
        speed = {
            run: min([1.0, *(resources[name] / wanted[name] for name in step.uses)])
            for run, step in steps.items()
        }
        passed = min(left[run] / speed[run] for run in left)
        now += passed
        for run, step in steps.items():
            left[run] -= speed[run] * passed
            for name, part in step.uses.items():
                busy[name] += part * speed[run] * passed
            if step.holds is not None:
                busy[step.holds] += passed
            if left[run] > CLOSE:
                continue
            del left[run]
            if place[run] + 1 < len(runs[run]):
                enter(run, place[run] + 1, step.holds)
                continue
            if step.holds is not None:
                free[step.holds] += 1
            ended[run] = now
            del place[run]
    return Outcome(ended, busy)


def bounds(runs: Sequence[Sequence[Step]], resources: Mapping[str, float]) -> dict[str, float]:
    """Seconds that no order of the runs can beat: the longest run, and for each resource all that
    the runs want of it. The greatest of them limits.
    """
    longest = max(sum(step.seconds for step in run) for run in runs)
    steps = [step for run in runs for step in run]
    return {"longest run": longest} | {
        name: sum(one.seconds * (one.uses.get(name, 0) + (one.holds == name)) for one in steps)
        / has
        for name, has in resources.items()
    }


class Phase(NamedTuple):
    """A part of a run, which ends where `until` is told, see `scaling.trace`.

    `where`: "submit", where the run is started; "lock", there, one run at a time; "worker", at a
    worker's place; "train" and "save", there, the two parts of the epochs; "score", on a machine
    alone where the run is started, on a cluster at a worker's place.
    """

    name: str
    whose: str
    where: str
    until: str


WORKER_STARTS = "worker: Ray, torch"
FIRST_STEP = "worker: data, network, first step"
PHASES = (
    Phase("Python, imports", "DVC", "submit", "> dvc.repo.Repo.reproduce"),
    Phase("dvc.yaml, what changed", "DVC", "lock", "start -m pipeline.train"),
    Phase("Python, the plan, Ray's import", "imports", "submit", "> ray.init"),
    Phase("torch, torchvision, MLflow", "imports", "submit", "import pipeline.driver"),
    Phase("run opened; Ray is there", "MLflow", "submit", "> pipeline.driver.Interruptible.fit"),
    Phase("controller", "Ray", "submit", "> ray.util.placement_group.placement_group"),
    Phase("other actors, the worker's process", "Ray", "worker", "start worker"),
    Phase(WORKER_STARTS, "imports", "worker", "> torch.set_num_threads"),
    Phase(FIRST_STEP, "training", "worker", "< torch.optim.Adam.step"),
    Phase("worker: all other steps", "training", "train", "last report"),
    Phase("worker: checkpoints, reports", "Ray", "save", ""),  # between the steps
    Phase("workers end", "Ray", "worker", "< pipeline.driver.Interruptible.fit"),
    Phase("weights and model written", "MLflow", "submit", "> ray.shutdown"),
    Phase("Ray and Python end", "Ray", "submit", "< dvc.stage.run.cmd_run"),
    Phase("outputs hashed and cached", "DVC", "lock", "start -m pipeline.evaluate"),
    Phase("evaluate: torch, MLflow", "imports", "submit", "> ianet.features.extract"),
    Phase("evaluate: features, ranking", "scoring", "score", "> mlflow.set_experiment"),
    Phase("evaluate: scores, Python ends", "MLflow", "submit", "< dvc.stage.run.cmd_run"),
    Phase("scores hashed and cached", "DVC", "lock", "end"),
)
Spent = Mapping[str, float]
"""The "seconds" of a phase, and the CPU seconds, "cpu", of the whole machine meanwhile."""


def computed(spent: Spent, holds: str | None) -> list[Step]:
    """A phase on shared cores: first all that it waits, then all that it computes."""
    computes = min(spent["cpu"], spent["seconds"])
    steps = [Step(spent["seconds"] - computes, holds)]
    if computes > 0:
        steps.append(Step(computes, holds, {CORES: spent["cpu"] / computes}))
    return steps


def here(phases: Mapping[str, Spent], training: float) -> list[Step]:
    """A run on this machine, on whose cores everything happens.

    Args:
        phases: of a run that had the machine to itself.
        training: seconds of all its steps but the first.
    """
    held = {"lock": LOCK, "submit": None, "score": None}
    steps = []
    for phase in PHASES:
        spent = phases[phase.name]
        if phase.where == "train":
            longer = training / spent["seconds"]
            spent = {what: longer * number for what, number in spent.items()}
        steps += computed(spent, held.get(phase.where, PLACES))
    return steps


class Work(NamedTuple):
    """What a run on a GPU has to do, in images and bytes.

    Attributes:
        epochs: of the training.
        trained, scored: images of an epoch, and of query and gallery.
        image, checkpoint: bytes of one.
        speed: images a second that a GPU trains.
        forward: times `speed` at which it scores.
        disk: bytes a second of the file system that all share.
        following: cores that the run keeps busy where it was started while it trains.
    """

    epochs: int
    trained: int
    scored: int
    image: int
    checkpoint: int
    speed: float
    forward: float
    disk: float
    following: float


def there(phases: Mapping[str, Spent], work: Work) -> list[Step]:
    """A run that is started on one machine, and trained and scored on GPUs of others. Where it is
    started all takes what was measured; so does the start of a worker, with cores of its own.
    """
    steps = []
    for phase in PHASES:
        spent = phases[phase.name]
        if phase.where in ("submit", "lock"):
            steps += computed(spent, LOCK if phase.where == "lock" else None)
        elif phase.where == "worker":
            steps.append(Step(spent["seconds"], PLACES))
        elif phase.where == "train":
            saving = work.epochs * work.checkpoint / work.disk
            seconds = work.epochs * work.trained / work.speed + saving
            steps.append(Step(work.trained * work.image / work.disk, PLACES, {DISK: 1}))
            steps.append(Step(seconds, PLACES, {DISK: saving / seconds, CORES: work.following}))
        elif phase.where == "score":
            steps.append(Step(phases[WORKER_STARTS]["seconds"], PLACES))
            steps.append(Step(work.scored * work.image / work.disk, PLACES, {DISK: 1}))
            steps.append(Step(work.scored / (work.forward * work.speed), PLACES))
    return steps
