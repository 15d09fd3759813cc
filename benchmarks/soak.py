"""Many trainings whose processes are killed at random: same weights, and nothing left behind.

    python benchmarks/soak.py [--trainings 200] [--interval 60] [--at-a-time 4] [--seed 0]
    python benchmarks/soak.py --trainings 4 --interval 20

A training is of MobileNetV2 on tests/project.py's tiny set, by a seed of its own, with one thread
and a checkpoint after each epoch. There are three passes, each in a copy of the project:

| pass | command | trainings at a time | faults |
|---|---|---|---|
| undisturbed | `python -m pipeline.repro` | `--at-a-time` | no |
| alone | `python -m pipeline.stages.train`, with a Ray of its own | 1 | yes |
| together | `python -m pipeline.repro` | `--at-a-time` | yes |

`--undisturbed N` trains N of the trainings in the first pass. Every `--interval` seconds, on
average, a fault is drawn:

| fault | signal | process |
|---|---|---|
| worker | SIGKILL | a process of Ray that trains |
| leader | SIGKILL | the process of a stage `train` |
| command | SIGTERM | the command of the pass |

A command that fails is started again until all trainings are done. Retries are these starts. The
exit status is 1 unless all of this holds:

- a seed has the same weights in all passes;
- a command fails after a fault only;
- no process, no lease and no file of a training is left after a pass;
- memory in use and open files of the machine are in the end what they were.

Other programs change the last two: nothing else may run on the machine. Prints two tables and
writes benchmarks/soak.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any, NamedTuple

import pandas as pd
import psutil
import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from machine import processor  # noqa: E402
from project import Project, kill  # noqa: E402

from ianet.files import digest_file  # noqa: E402

RESULTS = ROOT / "benchmarks/soak.json"
TABLES = {"undisturbed": "undisturbed", "alone": "soak", "together": "soak"}  # of a pass
KEY = "synthetic.base.quick.{}"
EPOCHS = 10
SIGNALS = {"worker": signal.SIGKILL, "leader": signal.SIGKILL, "command": signal.SIGTERM}
DELAY = 5.0  # seconds from a process that can be killed to its fault, at most
PATIENCE = 60.0  # seconds in which processes may end by themselves
FAILURES = 3  # of a command without a fault, after which the soak gives up
MORE = {"memory, MB": 500, "open files": 500}  # that the machine may have in the end
SECONDS = (600, 120)  # that a command may take, and for each training


class Pass(NamedTuple):
    """The result of a pass."""

    row: dict[str, Any]
    faults: list[dict[str, Any]]
    weights: dict[str, str]  # the SHA-256 of a run's weights, by its key
    problems: list[str]


class Faults(Thread):
    """Sends signals to the processes of a project, in a pass."""

    def __init__(self, folder: Path, interval: float, random: Random) -> None:
        super().__init__(daemon=True)
        self.folder, self.interval, self.random = folder, interval, random
        self.command: subprocess.Popen[bytes] | None = None
        self.done = Event()
        self.start_time = time.monotonic()
        self.rows: list[dict[str, Any]] = []

    def run(self) -> None:
        while not self.done.wait(self.interval * self.random.uniform(0.5, 1.5)):
            self._disturb(self.random.choice(list(SIGNALS)))

    def _disturb(self, kind: str) -> None:
        """Wait for a process of a kind, and send the signal at any time of its life."""
        while not self.done.wait(0.5):
            if self._find(kind) and not self.done.wait(self.random.uniform(0, DELAY)):
                processes = self._find(kind)
                if processes and self._send(kind, self.random.choice(processes)):
                    return

    def _send(self, kind: str, process: psutil.Process) -> bool:
        """Send the signal, and return whether the process was still there."""
        minutes = round((time.monotonic() - self.start_time) / 60, 2)
        name = SIGNALS[kind].name
        row = {"minutes": minutes, "fault": kind, "signal": name, "pid": process.pid}
        self.rows.append(row)  # before the signal: a command that fails looks here for a reason
        try:
            process.send_signal(SIGNALS[kind])
        except psutil.NoSuchProcess:
            self.rows.remove(row)
            return False
        print(f"  {minutes:7.2f} min: {name} to {kind}, process {process.pid}", flush=True)
        return True

    def _find(self, kind: str) -> list[psutil.Process]:
        command = self.command
        if kind == "command":
            if command is None or command.poll() is not None:
                return []
            with contextlib.suppress(psutil.NoSuchProcess):
                return [psutil.Process(command.pid)]
            return []
        return [process for process in find_processes(self.folder) if is_kind(process, kind)]


def find_processes(folder: Path) -> list[psutil.Process]:
    """The processes that have the project as PYTHONPATH.

    Agents of Ray write their names over their variables: the working directory tells theirs.
    """
    processes = []
    for process in psutil.process_iter(["environ", "cwd", "status"]):
        variables, place = process.info["environ"], process.info["cwd"]
        path = variables.get("PYTHONPATH") if variables else place
        if path == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
            processes.append(process)
    return processes


def is_kind(process: psutil.Process, kind: str) -> bool:
    """Whether a process of the project is a worker or a leader."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        if kind == "worker":
            return bool(words) and words[0].startswith("ray::_compute")
        return "pipeline.stages.train" in words  # a shell of DVC has them in one long word
    return False


def create_project(folder: Path, trainings: int, undisturbed: int) -> Project:
    """A project with prepared data, whose tables `soak` and `undisturbed` are of many seeds."""
    project = Project.create(folder)
    path = folder / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["datasets"]["synthetic"]["networks"] = ["base"]
    params["recipes"]["quick"]["network"]["backbone"] = "mobilenet_v2"
    params["recipes"]["quick"]["training"]["epochs"] = EPOCHS
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    for file in (folder / "experiments").glob("*.yaml"):
        file.unlink()
    for name, number in {"soak": trainings, "undisturbed": undisturbed}.items():
        table = {
            "kind": "table",
            "title": name,
            "caption": "",
            "metrics": ["mAP"],
            "seeds": {"synthetic": list(range(number))},
            "rows": [{"label": "base.", "network": "base"}],
        }
        (folder / f"experiments/{name}.yaml").write_text(yaml.safe_dump(table))
    project.run("python", "-m", "pipeline.plan")
    project.repro("pack@synthetic.64x32")
    return project


def set_cores(project: Project, number: int) -> None:
    """Let a project take the machine for one of so many cores: Ray trains as many at a time."""
    with (project.folder / "pipeline/cluster/resources.py").open("a") as file:
        file.write(f"\n\ndef cores() -> int:\n    return {number}\n")


def start(project: Project, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    # Not to a pipe, which a process that is left behind would hold open.
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=project.folder,
            env=project.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(
    project: Project, words: Sequence[str], faults: Faults, log: Path, limit: float
) -> tuple[int, int]:
    """Start a command until it succeeds.

    Returns:
        How often the command was started, and how often it failed without a fault.

    Raises:
        RuntimeError: the command fails again and again without a fault, or does not end.
    """
    starts, failures = 0, 0
    while True:
        count = len(faults.rows)
        faults.command = process = start(project, words, log)
        starts += 1
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"{words} did not end in {limit} s:\n{read_end(log)}") from None
        if code == 0:
            return starts, failures
        if len(faults.rows) == count:
            failures += 1
            print(f"  {words} failed without a fault:\n{read_end(log)}", flush=True)
            if failures == FAILURES:
                raise RuntimeError(f"{words} failed {failures} times without a fault")


def read_end(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def end_processes(folder: Path, patience: float) -> list[int]:
    """The ids of processes that did not end by themselves in so many seconds; they are killed."""
    end = time.monotonic() + patience
    while (processes := find_processes(folder)) and time.monotonic() < end:
        time.sleep(0.5)
    for process in processes:
        kill(process)
    return [process.pid for process in processes]


def find_files(folder: Path) -> list[str]:
    """Leases, files of trainings, and runs that are half written."""
    files = [
        path
        for name in ("build/leases", "build/trainings")
        for path in (folder / name).rglob("*")
        if path.is_file()
    ]
    # DVC writes .gitignore.
    files += [path for path in (folder / "runs").glob(".*") if path.name != ".gitignore"]
    return [str(path.relative_to(folder)) for path in files]


def run_pass(
    name: str, project: Project, keys: Sequence[str], interval: float, random: Random
) -> Pass:
    """Run all trainings of a pass, and look at what is left."""
    print(f"{name}: {len(keys)} trainings", flush=True)
    folder = project.folder
    log = folder.with_name(f"{name}.log")
    commands = (
        [("pipeline.stages.train", key) for key in keys]
        if name == "alone"
        else [("pipeline.repro", TABLES[name])]
    )
    limit = SECONDS[0] + SECONDS[1] * len(keys) / len(commands)
    faults = Faults(folder, interval, random)
    try:
        if name != "undisturbed":
            faults.start()
        counts = [finish(project, words, faults, log, limit) for words in commands]
        minutes = (time.monotonic() - faults.start_time) / 60
        faults.done.set()
        survivors = end_processes(folder, PATIENCE)
    finally:
        faults.done.set()
        end_processes(folder, 0)
    files = find_files(folder)
    weights = {
        path.parent.name: digest_file(path)
        for path in (folder / "runs").glob("*/weights.safetensors")
    }
    failures = sum(number for _, number in counts)
    problems = [
        *([f"{name}: {failures} failures without a fault"] if failures else []),
        *(f"{name}: process {pid} ran on" for pid in survivors),
        *(f"{name}: {path} was left" for path in files),
        *(f"{name}: {key} has no weights" for key in keys if key not in weights),
    ]
    row = {
        "pass": name,
        "trainings": len(keys),
        "minutes": round(minutes, 1),
        **{kind: sum(each["fault"] == kind for each in faults.rows) for kind in SIGNALS},
        "retries": sum(starts - 1 for starts, _ in counts),
        "failures without a fault": failures,
        "processes left": len(survivors),
        "files left": len(files),
    }
    return Pass(row, faults.rows, weights, problems)


def compare(result: Pass, reference: dict[str, str]) -> list[str]:
    """The keys whose weights differ from the reference, to which new keys are added."""
    return [
        key
        for key, digest in sorted(result.weights.items())
        if reference.setdefault(key, digest) != digest
    ]


def read_machine() -> dict[str, int]:
    """Memory in use and open files, of all programs of the machine."""
    memory = psutil.virtual_memory()
    return {
        "memory, MB": round((memory.total - memory.available) / 2**20),
        "open files": int(Path("/proc/sys/fs/file-nr").read_text().split()[0]),
    }


@contextlib.contextmanager
def open_folder(folder: Path | None) -> Iterator[Path]:
    """A folder that is kept, or a temporary one; Ray's files are in another temporary folder."""
    with contextlib.ExitStack() as stack:
        # A path of its own, as sockets of Ray need a short one.
        os.environ["RAY_TMPDIR"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="soak"))
        os.environ.pop("RAY_ADDRESS", None)
        if folder is None:
            yield Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder.mkdir(parents=True)
            yield folder.resolve()


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All figures, and the problems."""
    keys = [KEY.format(seed) for seed in range(arguments.trainings)]
    few = keys[: arguments.undisturbed]
    random = Random(arguments.seed)
    source = create_project(folder / "project", len(keys), len(few))
    end_processes(source.folder, PATIENCE)
    machine = {"before": read_machine()}
    reference: dict[str, str] = {}
    rows, faults, problems = [], [], []
    for name in arguments.only:
        project = source.copy(folder / name)
        set_cores(project, 1 if name == "alone" else arguments.at_a_time)
        subset = few if name == "undisturbed" else keys
        result = run_pass(name, project, subset, arguments.interval, random)
        differences = compare(result, reference)
        rows.append({**result.row, "other weights": len(differences)})
        faults += [{"pass": name, **row} for row in result.faults]
        problems += result.problems
        problems += [f"{name}: {key} has other weights" for key in differences]
        if arguments.folder is None:
            shutil.rmtree(project.folder)
        machine[f"after {name}"] = read_machine()
        print(pd.DataFrame(rows[-1:]).to_markdown(index=False), flush=True)
    first, last = machine["before"], list(machine.values())[-1]
    for figure, most in MORE.items():
        if last[figure] - first[figure] > most:
            problems.append(f"{figure}: {first[figure]} before, {last[figure]} after")
    return {
        "processor": processor(),
        "interval, s": arguments.interval,
        "at a time": arguments.at_a_time,
        "seed": arguments.seed,
        "passes": rows,
        "machine": machine,
        "faults": faults,
        "problems": problems,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trainings", type=int, default=200)
    parser.add_argument("--interval", type=float, default=60, help="seconds from fault to fault")
    parser.add_argument("--at-a-time", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the faults")
    parser.add_argument(
        "--undisturbed", type=int, help="trainings of the first pass; all by default"
    )
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--folder", type=Path, help="a new one, which is kept")
    arguments = parser.parse_args()
    with open_folder(arguments.folder) as folder:
        result = measure(arguments, folder)
    print(pd.DataFrame(result["passes"]).to_markdown(index=False))
    print(pd.DataFrame(result["machine"]).T.to_markdown())
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    if result["problems"]:
        sys.exit("\n".join(result["problems"]))


if __name__ == "__main__":
    main()
