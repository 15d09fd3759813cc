"""`dvc repro`, with as many trainings at a time as the machine holds.

    python -m pipeline.repro              everything
    python -m pipeline.repro table4f      one table or figure, and only the runs that it needs

Every stage is run by DVC (`dvc repro --single-item`), so what DVC knows afterwards is what a
plain `dvc repro` would have left, which does the same one run after another. Most of a small
run is start-up on one core: two at a time on two cores take little longer than one.

`Ctrl-C` stops all; the same command goes on from the last epoch of each training.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.plan import Evaluation, Run, load_plan, runs_of, write
from pipeline.shell import stage

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
LOGS = Path("build/logs")
TRIES = 5  # at a lock of DVC's that another process holds
BUSY = ("Unable to acquire lock", "is busy")


class Slot(NamedTuple):
    """What one training at a time has to itself: CPU cores, and GPUs if the machine has any."""

    cores: tuple[int, ...]
    gpus: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        own = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        # A process of one core must not think that it has them all.
        return {**os.environ, **own, "OMP_NUM_THREADS": str(len(self.cores))}


def slots(workers: int | str, cores: Sequence[int], gpus: Sequence[str]) -> list[Slot]:
    """The machine shared among trainings of so many workers.

    Args:
        workers: of one training, as in params.yaml; "auto" counts as one.
        cores, gpus: of the machine; a worker has a GPU where there are any, else a core.
    """
    each = 1 if workers == "auto" else int(workers)
    number = max(1, len(gpus or cores) // each)
    share = len(cores) // number
    return [
        Slot(
            tuple(cores[place * share : (place + 1) * share]) or tuple(cores),
            tuple(gpus[place * each : (place + 1) * each]),
        )
        for place in range(number)
    ]


def cores() -> list[int]:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    return listed.stdout.split()


def stale(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Those whose training or evaluation DVC would run.

    Raises:
        RuntimeError: DVC cannot tell.
    """
    stages = {f"train@{one.run.key}" for one in evaluations}
    stages |= {f"evaluate@{one.key}" for one in evaluations}
    changed = json.loads(_asked("status", "--json", *sorted(stages)))
    return [
        one
        for one in evaluations
        if f"train@{one.run.key}" in changed or f"evaluate@{one.key}" in changed
    ]


def _asked(*words: str) -> str:
    """What DVC says; RuntimeError if it cannot."""
    asked = subprocess.run([*DVC, *words], capture_output=True, text=True)
    if asked.returncode:
        raise RuntimeError(asked.stderr)
    return asked.stdout


class Job:
    """One run: its training and its evaluations, as a process of DVC's."""

    def __init__(self, run: Run, evaluations: Sequence[Evaluation]) -> None:
        self.run = run
        self.stages = [f"train@{run.key}", *(f"evaluate@{one.key}" for one in evaluations)]
        self.log = LOGS / f"{run.key}.log"
        self.last = "starting"
        self.seconds = 0.0
        self.process: subprocess.Popen[str] | None = None
        self.told_to_stop = False

    def work(self, slot: Slot, stopped: Event) -> bool:
        """Whether all its stages came out; its output goes to a file, the last line is kept."""
        started = time.monotonic()
        try:
            return any(self._try(slot) for _ in self._tries(stopped))
        finally:
            self.seconds = time.monotonic() - started

    def _tries(self, stopped: Event) -> Iterator[int]:
        for number in range(TRIES):
            busy = self.log.exists() and any(word in self.log.read_text() for word in BUSY)
            if stopped.is_set() or (number and not busy):
                return
            if number:
                time.sleep(number)
            yield number

    def _try(self, slot: Slot) -> bool:
        def own_cores() -> None:
            if hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, slot.cores)

        self.log.parent.mkdir(parents=True, exist_ok=True)
        started = subprocess.Popen(
            [*DVC, "repro", "--single-item", *self.stages],
            env=slot.environment(),
            preexec_fn=own_cores,
            start_new_session=True,  # Ctrl-C reaches it through `stop`, once
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.process = started
        with started, self.log.open("w") as log:
            assert started.stdout is not None
            for line in started.stdout:
                log.write(line)
                if line.startswith(("  epoch", self.run.key, "error: ")):
                    self.last = line.strip()
        return started.returncode == 0

    def stop(self) -> None:
        """As Ctrl-C in a terminal does, once: its stages clean up after themselves."""
        if self.process is not None and self.process.poll() is None and not self.told_to_stop:
            self.told_to_stop = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGINT)


def work_off(jobs: Sequence[Job], slots: Sequence[Slot], tell: Callable[[Job], None]) -> list[Job]:
    """Run jobs, one a slot at a time; returns those that failed.

    Args:
        tell: called when a job has ended.
    """
    waiting: SimpleQueue[Job] = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    stopped = Event()
    ended: SimpleQueue[tuple[Job, bool]] = SimpleQueue()

    def serve(slot: Slot) -> None:
        with contextlib.suppress(Empty):
            while not stopped.is_set():
                job = waiting.get_nowait()
                ended.put((job, job.work(slot, stopped)))

    threads = [Thread(target=serve, args=(slot,)) for slot in slots[: len(jobs)]]
    for thread in threads:
        thread.start()
    failed = []
    try:
        for _ in jobs:
            job, fine = ended.get()
            failed += [] if fine else [job]
            tell(job)
    finally:
        stopped.set()
        while any(thread.is_alive() for thread in threads):
            for job in jobs:
                job.stop()
            time.sleep(0.1)
    return failed


class View:
    """All runs in one view: what each slot does, how many are done, the time left."""

    def __init__(self, jobs: Sequence[Job], slots: int) -> None:
        self.jobs, self.slots = jobs, slots
        self.started = time.monotonic()
        self.done: list[Job] = []
        self.console = Console()
        self.live = Live(
            get_renderable=self._table, console=self.console, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def tell(self, job: Job) -> None:
        self.done.append(job)
        place = f"run {len(self.done)} of {len(self.jobs)}"
        self.console.print(
            f"{place}: {job.last} ({job.seconds:.0f} s; {self._left()})",
            highlight=False,
            soft_wrap=True,
        )

    def _left(self) -> str:
        passed = time.monotonic() - self.started
        left = passed / max(len(self.done), 1) * (len(self.jobs) - len(self.done))
        return f"about {minutes(left / 60)} left"

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for job in self.jobs:
            if job.process is not None and job not in self.done:
                table.add_row(job.run.key, job.last)
        return table


def minutes(number: float) -> str:
    """As people say it."""
    return "a minute" if number < 1.5 else f"{number:.0f} minutes"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="tables and figures; all if none is named")
    targets = parser.parse_args().targets
    plan = load_plan()
    settings = plan.settings
    evaluations = plan.evaluations(targets)
    write(plan)
    if not targets and not _asked("status", "--json").strip("{}\n "):
        print(f"nothing to do: {len(runs_of(evaluations))} runs and all results are up to date")
        return
    datasets = dict.fromkeys(name for run, on in evaluations for name in (run.dataset, on))
    first = ["plan", "sources", *(f"prepare@{name}" for name in datasets)]
    prepared = subprocess.run([*DVC, "repro", "--quiet", *first])
    if prepared.returncode:
        sys.exit(prepared.returncode)  # the stage and DVC said why

    runs = runs_of(evaluations)
    todo = stale(evaluations)
    jobs = [Job(run, [one for one in todo if one.run == run]) for run in runs_of(todo)]
    places = slots(settings.workers, cores(), gpus())
    print(f"{len(runs)} runs, {len(jobs)} of them to do", end="")
    if jobs:
        print(f", {min(len(places), len(jobs))} at a time", end="")
        known = [settings.recipes[job.run.recipe].minutes for job in jobs]
        if all(known):
            estimate = sum(number or 0 for number in known) / len(places)
            print(f": about {minutes(estimate)} where a core is as fast as ours", end="")
    print(flush=True)
    with View(jobs, len(places)) as view:
        failed = work_off(jobs, places, view.tell)
    if failed:
        lines = "\n".join(f"  {job.run.key}: {job.last} ({job.log})" for job in failed)
        sys.exit(f"error: {len(failed)} of {len(jobs)} runs failed:\n{lines}")
    # What is left: the tables and figures.
    finished = subprocess.run([*DVC, "repro", "--quiet", *targets])
    sys.exit(finished.returncode)


if __name__ == "__main__":
    with stage():
        main()
