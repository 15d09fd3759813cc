"""`dvc repro`, with as many trainings at a time as the machine holds.

    python -m pipeline.repro              everything
    python -m pipeline.repro table4f      one table or figure, and only the runs that it needs

Every stage is run by DVC (`dvc repro --single-item`), so what DVC knows afterwards is what a
plain `dvc repro` would have left, which does the same one run after another. They share one Ray:
that of RAY_ADDRESS, or one on this machine. It gives each training its cores or GPUs.

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

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline import address
from pipeline.plan import (
    PIPELINE,
    Evaluation,
    Plan,
    Run,
    load_plan,
    packed_of,
    runs_of,
    write,
)
from pipeline.settings import Settings
from pipeline.shell import only_one, stage

DVC = (sys.executable, "-m", "dvc", "--wait-for-lock")
LOGS = Path("build/logs")
AHEAD = 1  # run that starts up while others train, and trains when the first of them is done
TRIES = 5  # at a lock of DVC's that another process holds
BUSY = ("Unable to acquire lock", "is busy")


def changed() -> set[str]:
    """The stages that DVC would run.

    Raises:
        RuntimeError: DVC cannot tell.
    """
    # Of all: for each stage that is named it would read dvc.yaml anew, 55 s for 86 of them.
    asked = subprocess.run(
        [*DVC, "status", "--json", str(PIPELINE)], capture_output=True, text=True
    )
    if asked.returncode:
        raise RuntimeError(asked.stderr)
    return set(json.loads(asked.stdout))


def stale(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Those whose training or evaluation DVC would run."""
    stages = changed()
    return [one for one in evaluations if stages & {f"train@{one.run.key}", f"evaluate@{one.key}"}]


class Job:
    """One run: its training and its evaluations, as a process of DVC's."""

    def __init__(self, run: Run, evaluations: Sequence[Evaluation], threads: int) -> None:
        """`threads` are for what it does beside Ray: the evaluations."""
        self.run, self.threads = run, threads
        self.stages = [f"train@{run.key}", *(f"evaluate@{one.key}" for one in evaluations)]
        self.log = LOGS / f"{run.key}.log"
        self.last = "starting"
        self.seconds = 0.0
        self.process: subprocess.Popen[str] | None = None
        self.told_to_stop = False

    def work(self, stopped: Event) -> bool:
        """Whether all its stages came out; its output goes to a file, the last line is kept."""
        started = time.monotonic()
        try:
            return any(self._try() for _ in self._tries(stopped))
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

    def _try(self) -> bool:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        started = subprocess.Popen(
            [*DVC, "repro", "--single-item", *self.stages],
            env={**os.environ, "OMP_NUM_THREADS": str(self.threads)},
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
                told = line.startswith(("  epoch", self.run.key, "error: "))
                # DVC's own, but that a stage failed, which has said why.
                dvcs = line.startswith("ERROR: ") and not self.last.startswith("error: ")
                if told or dvcs:
                    self.last = line.strip()
        return started.returncode == 0

    def stop(self) -> None:
        """As Ctrl-C in a terminal does, once: its stages clean up after themselves."""
        if self.process is not None and self.process.poll() is None and not self.told_to_stop:
            self.told_to_stop = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGINT)


def work_off(jobs: Sequence[Job], at_a_time: int, tell: Callable[[Job], None]) -> list[Job]:
    """Run jobs, so many at a time; returns those that failed.

    Args:
        tell: called when a job has ended.
    """
    waiting: SimpleQueue[Job] = SimpleQueue()
    for job in jobs:
        waiting.put(job)
    stopped = Event()
    ended: SimpleQueue[tuple[Job, bool]] = SimpleQueue()

    def serve() -> None:
        with contextlib.suppress(Empty):
            while not stopped.is_set():
                job = waiting.get_nowait()
                fine = False
                try:
                    fine = job.work(stopped)
                except Exception as error:  # a full disk: who waits for the job must hear of it
                    job.last = f"error: {error}"
                ended.put((job, fine))

    threads = [Thread(target=serve) for _ in range(min(at_a_time, len(jobs)))]
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
    """All runs in one view: what each does, how many are done, the time left."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
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
        if len(self.done) == len(self.jobs):
            return "all done"
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


def _worked_off(todo: Sequence[Evaluation], settings: Settings) -> list[Job]:
    """All that is to do, on a shared Ray; returns what failed."""
    from pipeline import cluster  # not where there is nothing to do: Ray takes a second

    with cluster.shared():
        held = cluster.trainings(settings.workers)
        threads = max(cluster.cores() // held, 1)
        jobs = [Job(run, [one for one in todo if one.run == run], threads) for run in runs_of(todo)]
        print(f", {min(held, len(jobs))} at a time", end="")
        known = [settings.recipes[job.run.recipe].minutes for job in jobs]
        if all(known):
            estimate = sum(number or 0 for number in known) / held
            print(f": about {minutes(estimate)} where a core is as fast as ours", end="")
        print(flush=True)
        with View(jobs) as view:
            return work_off(jobs, held + AHEAD, view.tell)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help="tables and figures; all if none is named")
    targets = parser.parse_args().targets
    plan = load_plan()
    address.take(plan.settings)
    runs = runs_of(plan.evaluations(targets))
    write(plan)
    if not targets and not changed():
        print(f"nothing to do: {len(runs)} runs and all results are up to date")
        return
    with only_one(LOGS / "repro.lock", "making results in this folder"):
        _made(plan, targets)


def _made(plan: Plan, targets: Sequence[str]) -> None:
    settings, evaluations = plan.settings, plan.evaluations(targets)
    packed = packed_of(evaluations, settings)
    first = ["plan", "sources", *(f"pack@{name}-{size}" for name, size in packed)]
    prepared = subprocess.run([*DVC, "repro", "--quiet", *first])
    if prepared.returncode:
        sys.exit(prepared.returncode)  # the stage and DVC said why

    runs = runs_of(evaluations)
    todo = stale(evaluations)
    print(f"{len(runs)} runs, {len(runs_of(todo))} of them to do", end="" if todo else "\n")
    failed = _worked_off(todo, settings) if todo else []
    if failed:
        lines = "\n".join(f"  {job.run.key}: {job.last} ({job.log})" for job in failed)
        sys.exit(f"error: {len(failed)} of {len(runs_of(todo))} runs failed:\n{lines}")
    # What is left: the tables and figures.
    finished = subprocess.run([*DVC, "repro", "--quiet", *targets])
    sys.exit(finished.returncode)


if __name__ == "__main__":
    with stage():
        main()
