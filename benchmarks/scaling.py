"""What a run and a batch of runs take here, and what the whole paper would take on GPUs.

    python benchmarks/scaling.py measure      writes benchmarks/scaling.json, prints all tables
    python benchmarks/scaling.py simulate [--images-per-second 938] [--price 2]   the tables again

Measured with the synthetic set in a copy of the project: where the seconds of a run go, with its
own Ray and with one that is there already; a training on 1, 2 and 4 workers; a batch of runs, 1,
2 and 4 at a time. Nothing else may run on the machine: CPU seconds are those of all its cores.

Simulated out of these figures, see `simulation.py`: the batches and `make repro`, beside what they
really took; and every run of Tables 1 to 5 on 1 to 512 GPUs. No GPU was measured: `Assumed` says
what is taken for one.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pandas as pd
import psutil
import torch
import yaml
from simulation import (
    CORES,
    DISK,
    FIRST_STEP,
    LOCK,
    PHASES,
    PLACES,
    Phase,
    Step,
    Work,
    bounds,
    here,
    simulate,
    there,
)

from ianet.cost import multiply_adds, parameters
from pipeline import cluster  # noqa: F401  before Ray, whose settings it makes
from pipeline.address import ADDRESS, OURS
from pipeline.cost import built
from pipeline.experiments import Costs, experiments
from pipeline.plan import TABLES as WRITTEN
from pipeline.plan import Plan, load_plan, runs_of
from pipeline.repro import AHEAD

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/scaling.json"
REPEATS = 3
WORKERS = (1, 2, 4)
BATCH = 6  # runs
AT_A_TIME = (1, 2, 4)

# `make repro` on two cores: its runs, without the tables that come after them, and the images/s of
# base. there.
REPRO = {"at a time": 2, "seconds": 1_793, "images/s": 126}
REPRO_CORES = 2

TABLES = re.compile("table[1-5][a-f]?")  # of the paper
SEEDS = (0, 1, 2)  # of its runs; CUHK03 has its 20 splits
GPUS = (1, 8, 64, 512)
SPEEDS = (0.5, 2)  # times the images a second that are assumed
# Images of train, and of query and gallery together, see docs/data.md. Of the 14,096 images of
# CUHK03 a split has those of 1,367 of 1,467 people for training.
IMAGES = {
    "market1501": (12_936, 19_281),
    "dukemtmc": (16_522, 19_889),
    "msmt17": (30_248, 93_820),
    "cuhk03-labeled": (13_135, 961),
    "cuhk03-detected": (13_135, 961),
}


class Assumed(NamedTuple):
    """What was not measured.

    Attributes:
        images_per_second: of base. while it trains: one A100 with ResNet-50 at 224x224, which has
            as many multiply-adds, in TF32, as the recipe `paper` has it; 2,470 in mixed precision
            (NVIDIA/DeepLearningExamples, PyTorch, resnet50v1.5). Other networks by multiply-adds.
        price: dollars of a GPU-hour.
        forward: scoring is as many times as fast as training, which goes backward, too.
        cores: of the machine that starts the runs, as fast as those here.
        disk: bytes a second of the file system that all machines share, 10 Gbit/s.
        following: cores that a run needs where it was started while it trains: driver 0.005,
            Ray Train's controller 0.011 and its actors 0.016, sampled for a minute on Market-1501.
    """

    images_per_second: float = 938
    price: float = 2.0
    forward: float = 3
    cores: int = 16
    disk: float = 1.25e9
    following: float = 0.032


def trace() -> None:
    """Tell, a line each in the file that TRACE names, when a process starts and ends, and its
    calls and imports at which a phase ends.

    The source of this function is the copy's `sitecustomize.py`, which every Python process there
    runs first: DVC's, the stages' and Ray's.
    """
    import atexit
    import functools
    import importlib.abc
    import importlib.util
    import json
    import os
    import sys
    import time
    from pathlib import Path

    calls = {
        "dvc.repo": ["Repo.reproduce"],
        "dvc.stage.run": ["cmd_run"],
        "ray": ["init", "shutdown"],
        "ray.train": ["report"],
        "ray.util.placement_group": ["placement_group"],
        "torch": ["save", "set_num_threads"],
        "torch.optim": ["Adam.step"],
        "mlflow": ["set_experiment"],
        "ianet.features": ["extract"],
        "pipeline.driver": ["Interruptible.fit"],
    }
    ours = tuple(f"cpu{core} " for core in os.sched_getaffinity(0))

    def tell(what: str) -> None:
        # user, nice and system of each core, in hundredths of a second
        cores = [one for one in Path("/proc/stat").read_text().splitlines() if one.startswith(ours)]
        line = {
            "what": what,
            "pid": os.getpid(),
            "at": time.time(),
            "cpu": sum(int(number) for one in cores for number in one.split()[1:4]) / 100,
        }
        with Path(os.environ["TRACE"]).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def telling(name, function):
        @functools.wraps(function)
        def call(*arguments, **options):
            tell(f"> {name}")
            try:
                return function(*arguments, **options)
            finally:
                tell(f"< {name}")

        return call

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name not in calls:
                return None
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(name)
            sys.meta_path.insert(0, self)
            execute = spec.loader.exec_module

            def executed(module):
                execute(module)
                for call in calls[name]:
                    *owners, last = call.split(".")
                    owner = functools.reduce(getattr, owners, module)
                    setattr(owner, last, telling(f"{name}.{call}", getattr(owner, last)))
                tell(f"import {name}")

            spec.loader.exec_module = executed
            return spec

    sys.meta_path.insert(0, Finder())
    tell(f"start {' '.join(sys.orig_argv[1:3])}")
    atexit.register(tell, "exit")


class Copy:
    """A copy of the project, in which real runs are made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trace = folder / "trace.jsonl"
        for name in ("ianet", "pipeline", "experiments", ".dvc/config", ".dvcignore"):
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        (folder / "sitecustomize.py").write_text(f"{inspect.getsource(trace)}\n\ntrace()\n")
        # For Ray's processes too, which this one starts.
        os.environ["PYTHONPATH"] = str(folder)
        os.environ["TRACE"] = str(self.trace)
        os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        for name in ("PYTHONDONTWRITEBYTECODE", "MLFLOW_TRACKING_URI", ADDRESS):
            os.environ.pop(name, None)
        self.seeds = iter(range(10_000))  # a run with a new one was never made
        self.run("git", "init", "--quiet")
        self.planned(1)
        self.run("dvc", "repro", "--quiet", "plan", "sources", "pack@synthetic-64x32")

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def run(self, *command: str) -> None:
        process = self.start(*command)
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(output)

    def planned(
        self, seeds: int, *, workers: int | str = "auto", paper: bool = False, **options: Any
    ) -> int:
        """Plan so many new seeds of the synthetic set; returns the first.

        Args:
            seeds: number of them.
            workers: of a training.
            paper: whether the paper's runs are planned, too.
            options: of the synthetic set, other than the project's.
        """
        own = [next(self.seeds) for _ in range(seeds)]
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["workers"] = workers
        params["datasets"]["synthetic"] |= {"seeds": own, **options}
        if paper:
            for name, dataset in of_paper(load_plan()).settings.datasets.items():
                params["datasets"][name]["seeds"] = list(dataset.seeds)
                source = self.folder / dataset.source
                source.parent.mkdir(parents=True, exist_ok=True)
                source.touch()  # the plan asks only whether it is there
            params["at_hand"] += list(IMAGES)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        self.run("python", "-m", "pipeline.plan")
        return own[0]

    @contextmanager
    def ray(self, cores: int) -> Iterator[None]:
        """A Ray as `pipeline.repro` shares it, with so many CPUs, whatever the machine has."""
        from ray.cluster_utils import Cluster

        arguments = {"num_cpus": cores, "include_dashboard": False}
        made = Cluster(initialize_head=True, head_node_args=arguments)
        os.environ |= {ADDRESS: made.address, OURS: "1"}
        try:
            yield
        finally:
            del os.environ[ADDRESS], os.environ[OURS]
            made.shutdown()


class Watched(NamedTuple):
    """A run that was traced.

    Attributes:
        phases: of it.
        ray: seconds until Ray was started or joined, beside imports.
        history: what the worker reported, an epoch a row.
        seconds: from the command to its end.
    """

    phases: dict[str, dict[str, float]]
    ray: float
    history: pd.DataFrame
    seconds: float


def watched(copy: Copy, **planned: Any) -> Watched:
    """A new run, trained and scored as DVC does it."""
    key = f"synthetic-base-quick-{copy.planned(1, **planned)}"
    copy.trace.unlink()
    copy.run("dvc", "repro", "--single-item", f"train@{key}", f"evaluate@{key}")
    lines = [json.loads(line) for line in copy.trace.read_text().splitlines()]
    history = pd.read_csv(copy.folder / "runs" / key / "history.csv")
    told = {line["what"]: line["at"] for line in lines}
    phases = phases_of(lines)
    seconds = sum(phase["seconds"] for phase in phases.values())
    print(f"a run {planned or ''}: {seconds:.0f} s", flush=True)
    return Watched(phases, told["< ray.init"] - told["> ray.init"], history, seconds)


def phases_of(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The phases of a trace, which starts and ends with DVC's lines."""
    worker = next(line["pid"] for line in lines if line["what"].endswith("set_num_threads"))
    own = [line for line in lines if line["pid"] == worker]
    saving = [one for one in own if one["what"][2:] in ("torch.save", "ray.train.report")]
    own[0]["what"], saving[-1]["what"] = "start worker", "last report"
    [line for line in lines if line["pid"] == lines[0]["pid"]][-1]["what"] = "end"
    saved = spent(*zip(saving[::2], saving[1::2], strict=True))
    found = {}
    ends = iter(lines)
    before = next(ends)
    for phase in PHASES:
        if phase.where == "save":
            found[phase.name] = saved
            continue
        after = next(line for line in ends if line["what"] == phase.until)
        found[phase.name] = spent((before, after))
        if phase.where == "train":
            for what in saved:
                found[phase.name][what] -= saved[what]
        before = after
    return found


def spent(*pairs: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, float]:
    """Between the lines of each pair."""
    return {
        "seconds": sum(after["at"] - before["at"] for before, after in pairs),
        "cpu": sum(after["cpu"] - before["cpu"] for before, after in pairs),
    }


def medians(runs: Sequence[Watched]) -> dict[str, dict[str, float]]:
    """Of each phase, over repeats."""
    return {
        phase.name: {
            what: round(median(run.phases[phase.name][what] for run in runs), 3)
            for what in ("seconds", "cpu")
        }
        for phase in PHASES
    }


def batch(copy: Copy, at_a_time: int) -> dict[str, float]:
    """Seconds from the start of several runs to the end of the last, through `pipeline.repro`, and
    the images a second of one of them.
    """
    seed = copy.planned(BATCH, networks=["base"])
    process = copy.start("python", "-m", "pipeline.repro", "table4f")
    begun = ended = 0.0
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line)
        if f"{BATCH} of them to do" in line:
            begun = time.monotonic()
        if line.startswith(f"run {BATCH} of {BATCH}:"):
            ended = time.monotonic()
    if process.wait():
        raise RuntimeError("".join(lines))
    runs = [copy.folder / f"runs/synthetic-base-quick-{seed + number}" for number in range(BATCH)]
    history = pd.concat(pd.read_csv(run / "history.csv") for run in runs)
    found = {
        "runs": BATCH,
        "at a time": at_a_time,
        "seconds": round(ended - begun, 1),
        "images/s": round(history.images_per_second.median()),
    }
    print(found, flush=True)
    return found


def measure() -> dict[str, Any]:
    """All that is measured."""
    cores = sorted(os.sched_getaffinity(0))
    used = psutil.cpu_percent(5, percpu=True)
    found: dict[str, Any] = {
        "machine": {
            "cpu": re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[0],
            "cores": len(cores),
            "busy before": round(sum(used[core] for core in cores) / 100, 2),
            "torch": torch.__version__,
        }
    }
    print(found["machine"], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        watched(copy)  # makes MLflow's database, and .pyc files
        phases = {"alone": [watched(copy) for _ in range(REPEATS)]}
        trainings = {}
        with copy.ray(max(WORKERS)):
            for workers in WORKERS:
                trainings[workers] = [watched(copy, workers=workers) for _ in range(REPEATS)]
            phases["shared"] = trainings[1]
            phases["paper"] = [watched(copy, paper=True) for _ in range(REPEATS)]
        found["phases"] = {name: medians(runs) for name, runs in phases.items()}
        found["ray"] = {
            name: round(median(run.ray for run in runs), 1) for name, runs in phases.items()
        }
        history = trainings[1][0].history
        found["images"] = round((history.seconds * history.images_per_second).iloc[0])
        found["workers"] = [
            {
                "workers": workers,
                "seconds": round(median(run.seconds for run in runs), 1),
                "images/s": round(median(pd.concat(run.history for run in runs).images_per_second)),
            }
            for workers, runs in trainings.items()
        ]
        found["batches"] = []
        for number in AT_A_TIME:
            with copy.ray(number):
                found["batches"].append(batch(copy, number))
    return found


def of_paper(plan: Plan) -> Plan:
    """The plan with the paper's data sets at hand, and its tables only."""
    settings = plan.settings
    datasets = {
        name: one if len(one.seeds) > 1 else one.model_copy(update={"seeds": SEEDS})
        for name, one in settings.datasets.items()
        if name in IMAGES
    }
    sheets = {
        name: sheet for name, sheet in experiments(settings).items() if TABLES.fullmatch(name)
    }
    asked = {"at_hand": tuple(datasets), "datasets": datasets}
    return Plan(settings.model_copy(update=asked), sheets)


def works(plan: Plan, assumed: Assumed) -> list[Work]:
    """What each run of a plan has to do on a GPU."""
    settings = plan.settings
    costs: dict[str, tuple[int, int]] = {}
    found = []
    for run in runs_of(plan.evaluations()):
        recipe = settings.recipes[run.recipe]
        epochs, height, width = (recipe.training[name] for name in ("epochs", "height", "width"))
        for name in ("base", run.network):
            if name not in costs:
                network = built(settings.networks[name], recipe)
                costs[name] = multiply_adds(network, height, width), parameters(network)
        multiplied, weights = costs[run.network]
        found.append(
            Work(
                epochs,
                *IMAGES[run.dataset],
                image=3 * height * width,
                checkpoint=3 * 4 * weights,  # with Adam's two moments, in float32
                speed=assumed.images_per_second * costs["base"][0] / multiplied,
                forward=assumed.forward,
                disk=assumed.disk,
                following=assumed.following,
            )
        )
    return found


def defaults(found: Mapping[str, Any]) -> list[list[Step]]:
    """The runs of `make repro`."""
    plan = load_plan()
    frame = pd.read_csv(WRITTEN / "cost.csv", index_col="label")["quick training"]
    speeds = {row.network: frame[row.label] for row in plan.sheet("cost", Costs).rows}
    runs = []
    for run in runs_of(plan.evaluations()):
        # What is not in the table is a variant of SIA.
        relative = speeds.get(run.network, speeds["sia"]) / speeds["base"]
        images = found["images"] * plan.settings.recipes[run.recipe].training["epochs"]
        seconds = images / (found["workers"][0]["images/s"] * relative)
        runs.append(here(found["phases"]["shared"], seconds))
    return runs


def predicted(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was measured, beside what the simulation makes of one run's phases."""
    phases = found["phases"]["shared"]
    (train,) = (phases[phase.name]["seconds"] for phase in PHASES if phase.where == "train")
    cores = found["machine"]["cores"]
    cases = [
        (f"{one['runs']} runs", one, [here(phases, train)] * one["runs"], cores)
        for one in found["batches"]
    ]
    cases.append(("make repro", REPRO, defaults(found), REPRO_CORES))
    rows = []
    for name, measured, runs, cores in cases:
        number, seconds = measured["at a time"], measured["seconds"]
        resources = {PLACES: number, CORES: cores, LOCK: 1}
        simulated = simulate(runs, resources, number + AHEAD).seconds
        rows.append(
            {
                "": name,
                "at a time": number,
                "images/s of each": measured["images/s"],
                "measured, s": f"{seconds:.0f}",
                "predicted, s": f"{simulated:.0f}",
                "error": f"{simulated / seconds - 1:+.0%}",
            }
        )
    return rows


def on_gpus(found: Mapping[str, Any], assumed: Assumed) -> tuple[list[Any], list[Any]]:
    """The paper on GPUs: hours and cost; and what limits, by what each resource has to do and by
    the hours that would be left if there were plenty of it.
    """
    has = {CORES: assumed.cores, LOCK: 1, DISK: 1}
    todo = works(of_paper(load_plan()), assumed)

    def runs(speed: float) -> list[list[Step]]:
        phases = found["phases"]["paper"]
        return [there(phases, work._replace(speed=speed * work.speed)) for work in todo]

    def hours(runs: Sequence[Sequence[Step]], gpus: int, **more: float) -> float:
        return simulate(runs, has | {PLACES: gpus} | more, gpus + AHEAD).seconds / 3600

    usual, others = runs(1), {speed: runs(speed) for speed in SPEEDS}
    rows = []
    for gpus in GPUS:
        taken = hours(usual, gpus)
        rows.append(
            {
                "GPUs": gpus,
                "hours": f"{taken:.2f}",
                **{f"at {speed} x": f"{hours(own, gpus):.2f}" for speed, own in others.items()},
                "GPU-hours": f"{gpus * taken:.0f}",
                "dollars": f"{gpus * taken * assumed.price:,.0f}",
            }
        )
    least = bounds(usual, has | {PLACES: 1})
    limits = [
        {"": name, "alone": f"{seconds / 3600:.2f}"}
        | {
            f"{gpus} GPUs": f"{hours(usual, gpus, **{name: len(usual)}):.2f}"
            for gpus in GPUS
            if name in has
        }
        for name, seconds in least.items()
    ]
    return rows, limits


def where(found: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    """What is spent where: phase by phase, and by whose they are."""
    columns = {
        (kind, what): f"{shown}, {unit}"
        for kind, shown in (("alone", "own Ray"), ("shared", "shared Ray"), ("paper", "full plan"))
        for what, unit in (("seconds", "s"), ("cpu", "CPU s"))
    }

    def cells(*phases: Phase) -> dict[str, str]:
        return {
            shown: f"{sum(found['phases'][kind][one.name][what] for one in phases):.1f}"
            for (kind, what), shown in columns.items()
        }

    rows = []
    for number, phase in enumerate(PHASES, start=1):
        rows.append({"whose": phase.whose, "phase": phase.name} | cells(phase))
        if phase.name == FIRST_STEP:
            rows.append({"phase": "**start-up to first step**"} | cells(*PHASES[:number]))
    rows.append({"phase": "**all**"} | cells(*PHASES))
    owners = dict.fromkeys(phase.whose for phase in PHASES)
    sums = [
        {"whose": whose} | cells(*[one for one in PHASES if one.whose == whose]) for whose in owners
    ]
    return rows, sums


def show(found: Mapping[str, Any], assumed: Assumed) -> None:
    """All tables, as Markdown."""
    (first, *_), workers = found["workers"], found["workers"]
    rows, sums = where(found)
    paper, least = on_gpus(found, assumed)
    print(found["machine"], "Ray is there after, s:", found["ray"])
    for title, table in {
        "What is spent where": rows,
        "By whose": sums,
        "One training": [
            one | {"of 1 worker's": f"{one['images/s'] / first['images/s']:.2f}"} for one in workers
        ],
        "Predicted": predicted(found),
        "The paper": paper,
        "What limits: hours that it alone needs, and that are left without it": least,
    }.items():
        print(f"\n{title}\n")
        print(pd.DataFrame(table).fillna("").to_markdown(index=False, disable_numparse=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["measure", "simulate"])
    for name in ("images_per_second", "price"):
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=float, default=Assumed._field_defaults[name])
    arguments = vars(parser.parse_args())
    if arguments.pop("what") == "measure":
        RESULTS.write_text(json.dumps(measure(), indent=2) + "\n")
    show(json.loads(RESULTS.read_text()), Assumed(**arguments))


if __name__ == "__main__":
    main()
