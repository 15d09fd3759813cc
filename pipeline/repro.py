"""`dvc repro`, with as many trainings at a time as the machine holds.

    python -m pipeline.repro              everything
    python -m pipeline.repro table4f      one table or figure, and only the runs that it needs

DVC runs every stage (`dvc repro --single-item`). So DVC's state afterwards is what a plain
`dvc repro` leaves, which runs one after another, on a CPU each with a thread for each core. All
runs share one Ray: that of RAY_ADDRESS, or one on this machine, which gives each training its cores
or GPUs.

`Ctrl-C` stops all; the same command resumes each training from its last checkpoint. The log of a
run is build/logs/<key>.log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.cluster.environment import prepare
from pipeline.config.settings import Settings
from pipeline.ending import explain_end, make_page
from pipeline.plan.dvc_yaml import PIPELINE, REPORT, build_pipeline, list_outputs, write
from pipeline.plan.plan import Plan, image_sets, load_plan, own_evaluation, unique_runs
from pipeline.plan.runs import Evaluation, Run
from pipeline.shell import (
    DVC,
    EVENTS,
    LOGS,
    Interrupt,
    command,
    format_minutes,
    format_runs,
    lock_work,
    parser,
    run_command,
)
from pipeline.training.rehearsal import rehearse

AHEAD = 1  # run that starts up while others train, and trains when the first of them is done
FULL = "No space left on device"  # by which the system tells of a full disk
TRIES = 5  # of a run of which DVC starts no stage, as another process holds a lock of DVC

log = logging.getLogger("pipeline.repro")


def find_stale_stages() -> set[str]:
    """The stages that DVC would run.

    Raises:
        OSError: DVC does not answer.
    """
    # Of all: for each stage that is named DVC reads dvc.yaml anew.
    status = subprocess.run(
        [*DVC, "status", "--json", str(PIPELINE)], capture_output=True, text=True
    )
    if status.returncode:
        advice = (
            ": `git restore dvc.lock` takes the file back" if "dvc.lock" in status.stderr else ""
        )
        raise OSError(f"`dvc status` failed: {status.stderr.strip()}{advice}")
    return set(json.loads(status.stdout))


def list_preparations(evaluations: Sequence[Evaluation], settings: Settings) -> list[str]:
    """The stages before the trainings of evaluations."""
    images = image_sets(evaluations, settings)
    synthetic_sets = [name for name, _ in images if settings.datasets[name].synthetic is not None]
    return [
        *("plan", "sources"),
        *dict.fromkeys(f"synthesize@{name}" for name in synthetic_sets),
        *dict.fromkeys(f"prepare@{name}" for name, _ in images),
        *(f"pack@{name}.{size}" for name, size in images),
    ]


def list_stages(evaluations: Sequence[Evaluation]) -> list[str]:
    """The stages of runs, of their evaluations and of their models, in an order to run them."""
    return [
        *(f"train@{run.key}" for run in unique_runs(evaluations)),
        *(f"evaluate@{evaluation.key}" for evaluation in evaluations),
        *(f"model@{evaluation.key}" for evaluation in evaluations if evaluation.is_own),
    ]


def list_stages_before(evaluation: Evaluation, plan: Plan) -> list[str]:
    """The stages of an evaluation, and of the runs from whose models its training starts."""
    return list_stages([*map(own_evaluation, plan.starts(evaluation.run)), evaluation])


class Job:
    """One run: its training, its evaluations and its model, as a process of DVC.

    Attributes:
        run: that is trained.
        stages: of DVC, in their order.
        log: the file of what the stages print.
        reports: the file to which the stages write their events.
        events: of this try, as far as they were read.
        last: what happened last, as people read it.
        node: of the cluster on which the run trains; nothing without a cluster.
        seconds: that the job took.
    """

    def __init__(self, run: Run, evaluations: Sequence[Evaluation], threads: int) -> None:
        """`threads` are for what a job does beside Ray: the evaluations, where there is no GPU."""
        self.run, self.threads = run, threads
        self.stages = list_stages(evaluations)
        self.log = LOGS / f"{run.key}.log"
        self.reports = LOGS / f"{run.key}.jsonl"
        self.events: list[dict[str, Any]] = []
        self.last = "waits"
        self.node = ""
        self.start: float | None = None
        self.seconds = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.interrupt: Interrupt | None = None

    def work(self, stop: Event) -> bool:
        """Run the stages; whether all of them succeeded."""
        self.start = time.monotonic()
        self.last = "starts"
        complete: set[str] = set()
        try:
            for attempt in range(TRIES):
                if stop.is_set():
                    return False
                if self._run_stages():
                    return True
                commands = self._list_starts()
                if not self.is_untouched():
                    if commands and not self._has_error() and not stop.is_set():
                        self.last = f"error: {commands[-1]} was killed, or its node: {self.last}"
                    return False
                # DVC did not save what the stage made.
                if FULL in self._read_reason() or complete.intersection(commands):
                    break
                complete.update(commands)
                time.sleep(attempt + 1)
            reason = self._read_reason()
            advice = f": make space in {find_fullest()}" if FULL in reason else ""
            self.last = f"error: DVC failed: {reason}{advice}"
            return False
        finally:
            self.seconds = time.monotonic() - self.start

    def _read_reason(self) -> str:
        """The last line that DVC printed."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"

    def _run_stages(self) -> bool:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.reports.write_bytes(b"")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*DVC, "repro", "--single-item", *self.stages],
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(self.threads),
                    EVENTS: str(self.reports.resolve()),
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,  # Ctrl-C reaches it through `stop`, once
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            with self.process:
                while self.process.poll() is None:
                    self.follow()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        self.process.wait(0.5)
        self.follow()
        return self.process.returncode == 0

    def follow(self) -> None:
        """Read what the stages reported so far; a line that is half written is left for later."""
        lines: list[str] = []
        with contextlib.suppress(OSError):
            lines = self.reports.read_text().splitlines(keepends=True)
        self.events = [json.loads(line) for line in lines if line.endswith("\n")]
        for event in self.events:
            match event["event"]:
                case "node":
                    self.node = event["name"]
                case "epoch":
                    self.last = f"epoch {event['epoch']}, loss {event['loss']:.3f}"
                case "scored":
                    self.last = event["summary"]
                case "error":
                    self.last = event["message"]

    def is_untouched(self) -> bool:
        """Whether DVC ended without a stage that failed: it could not start the next one."""
        names = [event["event"] for event in self.events]
        return not self._has_error() and names.count("started") == names.count("finished")

    def _has_error(self) -> bool:
        return any(event["event"] == "error" for event in self.events)

    def _list_starts(self) -> list[str]:
        """The stages that began in this try, as their module and arguments."""
        starts = [event for event in self.events if event["event"] == "started"]
        return [" ".join([Path(start["command"]).stem, *start["arguments"]]) for start in starts]

    def stop(self) -> None:
        """As Ctrl-C in a terminal does; to be called until the job ends."""
        if self.process is not None and self.process.poll() is None:
            if self.interrupt is None or self.interrupt.process is not self.process:
                self.interrupt = Interrupt(self.process)
            self.interrupt.send()


def find_fullest() -> Path:
    """The folder to which DVC writes with the least space: DVC names none when a disk is full."""
    words = [*DVC, "cache", "dir"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    folders = [Path(answer).absolute()] if answer else []
    folders += [Path(".dvc").absolute(), Path.cwd()]
    present = [folder for folder in folders if folder.exists()]
    return min(present, key=lambda folder: shutil.disk_usage(folder).free)


def run_jobs(jobs: Sequence[Job], at_a_time: int, on_end: Callable[[Job], None]) -> list[Job]:
    """Run jobs, so many at a time.

    Args:
        jobs: in their order.
        at_a_time: how many.
        on_end: receives each job that has ended.

    Returns:
        The jobs that failed.
    """
    queue: SimpleQueue[Job] = SimpleQueue()
    for job in jobs:
        queue.put(job)
    stop = Event()
    ends: SimpleQueue[tuple[Job, bool]] = SimpleQueue()

    def serve() -> None:
        with contextlib.suppress(Empty):
            while not stop.is_set():
                job = queue.get_nowait()
                success = False
                try:
                    success = job.work(stop)
                except Exception as error:  # a full disk: who waits for the job must hear of it
                    job.last = f"error: {error}"
                ends.put((job, success))

    threads = [Thread(target=serve) for _ in range(min(at_a_time, len(jobs)))]
    for thread in threads:
        thread.start()
    failed = []
    try:
        for _ in jobs:
            job, success = ends.get()
            failed += [] if success else [job]
            on_end(job)
    finally:
        stop.set()
        while any(thread.is_alive() for thread in threads):
            for job in jobs:
                job.stop()
            time.sleep(0.1)
    return failed


def estimate_seconds_left(jobs: Sequence[Job], done: Sequence[Job], at_a_time: int) -> float:
    """Estimated seconds until all jobs are done, by the mean of those that are."""
    complete = [job.seconds for job in done if job.start is not None]
    mean = sum(complete) / max(len(complete), 1)
    left = 0.0
    for job in jobs:
        if job not in done:
            seconds = 0.0 if job.start is None else time.monotonic() - job.start
            left += max(mean - seconds, 0.0)
    return left / at_a_time


class View:
    """All runs in one view: what each does, how many are done, the time left."""

    def __init__(self, jobs: Sequence[Job], at_a_time: int) -> None:
        self.jobs, self.at_a_time = jobs, at_a_time
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

    def show_end(self, job: Job) -> None:
        """A line for a job that ended."""
        self.done.append(job)
        if len(self.done) == len(self.jobs):
            left = "all done"
        else:
            seconds = estimate_seconds_left(self.jobs, self.done, self.at_a_time)
            left = f"about {format_minutes(seconds / 60)} left"
        self.console.print(
            f"run {len(self.done)} of {len(self.jobs)}: {job.last} ({job.seconds:.0f} s; {left})",
            highlight=False,
            soft_wrap=True,
        )

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for job in self.jobs:
            if job.start is not None and job not in self.done:
                table.add_row(job.run.key, job.node, job.last)
        return table


def run_waves(
    jobs: Sequence[Job], plan: Plan, at_a_time: int, on_end: Callable[[Job], None]
) -> list[Job]:
    """Run jobs, those first from whose models others start.

    Args:
        jobs: in their order within a wave.
        plan: says which run starts from which.
        at_a_time, on_end: as of `run_jobs`.

    Returns:
        The jobs that failed, and those that start from a model of such a job.
    """
    waves: dict[int, list[Job]] = {}
    for job in jobs:
        waves.setdefault(len(plan.starts(job.run)), []).append(job)
    failed: list[Job] = []
    for _, wave in sorted(waves.items()):
        ready = []
        for job in wave:
            failures = {job.run for job in failed}.intersection(plan.starts(job.run))
            if failures:
                names = ", ".join(run.key for run in failures)
                job.last = f"error: {job.run.key} starts from {names}, which failed"
                failed.append(job)
                on_end(job)
            else:
                ready.append(job)
        failed += run_jobs(ready, at_a_time, on_end)
    return failed


def estimate_minutes(runs: Sequence[Run], plan: Plan, stale_stages: Set[str]) -> float | None:
    """Minutes of a core for the trainings of runs.

    Args:
        runs: of which some may be trained already.
        plan: with the recipes' estimates.
        stale_stages: of `find_stale_stages`.

    Returns:
        None where a recipe has no estimate, or nothing is trained.
    """
    minutes = [
        plan.settings.recipes[run.recipe].minutes
        for run in runs
        if any(f"train@{each.key}" in stale_stages for each in [*plan.starts(run), run])
    ]
    return sum(number or 0 for number in minutes) if minutes and all(minutes) else None


def run_stale(evaluations: Sequence[Evaluation], plan: Plan, stale_stages: Set[str]) -> list[Job]:
    """Train and evaluate on a shared Ray; returns the jobs that failed."""
    from pipeline.cluster.resources import cores, trainings_at_a_time
    from pipeline.cluster.session import open_shared_session  # Ray takes a second

    settings = plan.settings
    runs = unique_runs(evaluations)
    # The jobs of these runs find the failures again, and report them.
    failures = rehearse([run.key for run in runs], plan)
    with contextlib.ExitStack() as stack:
        at_a_time = 1
        if len(failures) < len(runs):
            stack.enter_context(open_shared_session())
            at_a_time = trainings_at_a_time(settings.workers)
        threads = max(cores() // at_a_time, 1)
        jobs = [
            Job(run, [each for each in evaluations if each.run == run], threads) for run in runs
        ]
        # The longest first, so that none of them is left to train alone at the end. Recipes without
        # an estimate are the paper's.
        jobs.sort(key=lambda job: -(settings.recipes[job.run.recipe].minutes or math.inf))
        text = f"{format_runs(len(runs))} to do, {min(at_a_time, len(jobs))} at a time"
        minutes = estimate_minutes(runs, plan, stale_stages)
        if minutes is not None:
            estimate = format_minutes(minutes / at_a_time)
            text += f": about {estimate} where a core is as fast as ours"
        print(text, flush=True)
        with View(jobs, at_a_time) as view:
            return run_waves(jobs, plan, at_a_time + AHEAD, view.show_end)


def reproduce(plan: Plan, targets: Sequence[str]) -> None:
    """Bring the targets up to date, or all results where none is named.

    Raises:
        SystemExit: a stage failed; the message says which. Results without a run that failed are
            made all the same.
    """
    evaluations = plan.evaluations(targets)
    runs = unique_runs(evaluations)
    preparations = list_preparations(evaluations, plan.settings)
    stale_stages = find_stale_stages()
    stages = {*preparations, *targets, *list_stages(evaluations)}
    if not (stale_stages & stages if targets else stale_stages):
        print(f"nothing to do: {format_runs(len(runs))} and all results are up to date")
        if not REPORT.exists():
            make_page()
        return
    if stale_stages & set(preparations):
        _dvc_repro(preparations)
        stale_stages = find_stale_stages()
    stale = [
        each for each in evaluations if stale_stages.intersection(list_stages_before(each, plan))
    ]
    text = f"{format_runs(len(runs))}, {len(unique_runs(stale))} of them to do"
    # The first line names the logs, as what follows may take minutes.
    print(f"{text}. Logs: {LOGS}/<key>.log" if stale else text, flush=True)
    failed = run_stale(stale, plan, stale_stages) if stale else []
    if failed:
        lines = "\n".join(
            f"  {job.run.key}: {job.last}" + (f" ({job.log})" if job.start is not None else "")
            for job in failed
        )
        complete = find_results_without(failed, plan, targets or list(plan.experiments))
        if complete:
            with contextlib.suppress(SystemExit):  # a stage of DVC says its own error
                _dvc_repro(complete)
        sys.exit(f"error: {len(failed)} of {len(unique_runs(stale))} runs failed:\n{lines}")
    _dvc_repro(targets)  # the tables and figures
    if targets:  # The page is no target.
        make_page()
    results = [*find_results(plan, targets), str(REPORT)]
    print(f"done: {', '.join(results)}. Runs: make ui")


def find_results_without(failed: Sequence[Job], plan: Plan, names: Sequence[str]) -> list[str]:
    """The tables and figures, of those with the names, that show no run that failed."""
    runs = {job.run for job in failed}
    return [name for name in names if runs.isdisjoint(unique_runs(plan.evaluations([name])))]


def find_results(plan: Plan, targets: Sequence[str]) -> list[str]:
    """The file of each target that is best to look at: a page, else a picture."""
    stages = build_pipeline(plan)["stages"]
    results = []
    for target in targets:
        outputs = list_outputs(stages[target])
        pages = [path for suffix in (".html", ".svg") for path in outputs if path.endswith(suffix)]
        results.append(pages[0])
    return results


def _dvc_repro(targets: Sequence[str]) -> None:
    run_command(*DVC, "repro", "--quiet", *targets)


def main() -> None:
    options = parser(__doc__, "pipeline.repro")
    options.add_argument("targets", nargs="*", help="tables and figures; all if none is named")
    targets = options.parse_args().targets
    plan = load_plan()
    plan.evaluations(targets)
    prepare(plan.settings)
    with lock_work(LOGS / "repro.lock", "making results in this folder"), explain_end():
        write(plan)
        reproduce(plan, targets)


if __name__ == "__main__":
    command(main)
