"""What a run costs beside its training, and how long a search takes.

    python benchmarks/runs.py            a run alone, a run in a shared Ray, a `repro` with no work
    python benchmarks/runs.py --search   the search sigma of experiments/, too

A run is that of tests/project.py's tiny set, in a copy of the project. Start-up is from the command
of DVC to the first batch. The leader of a run is the process of its stage. Memory is the peak: RSS
counts shared pages in full, PSS by their share. Nothing else may run on the machine.
Writes benchmarks/runs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from machine import processor  # noqa: E402
from project import Project  # noqa: E402

RESULTS = ROOT / "benchmarks/runs.json"
REPEATS = 3
KEY = "synthetic.base.quick.0"
LEADERS = {"stage": "pipeline.stages.train"}


class Memory(Thread):
    """The peak memory of the processes of a project, by a word of their command line."""

    def __init__(self, project: Project) -> None:
        super().__init__(daemon=True)
        self.project, self.done = project, Event()
        self.peaks: dict[str, dict[str, int]] = {name: {"RSS": 0, "PSS": 0} for name in LEADERS}

    def run(self) -> None:
        while not self.done.wait(0.3):
            for process in psutil.process_iter():
                try:
                    self._measure(process)
                except psutil.Error:
                    continue

    def _measure(self, process: psutil.Process) -> None:
        command = " ".join(process.cmdline())
        for name, word in LEADERS.items():
            if word in command and "dvc" not in command:
                if process.environ().get("PYTHONPATH") != str(self.project.folder):
                    continue
                memory = process.memory_full_info()
                for kind, size in (("RSS", memory.rss), ("PSS", memory.pss)):
                    peak = self.peaks[name]
                    peak[kind] = max(peak[kind], round(size / 1e6))


def measure_run(project: Project, variables: Mapping[str, str]) -> dict[str, Any]:
    """Seconds and memory of one run, trained by DVC."""
    for folder in ("runs", "build/trainings"):
        shutil.rmtree(project.folder / folder, ignore_errors=True)
    memory = Memory(project)
    memory.start()
    start = time.time()
    process = project.start("dvc", "repro", "--force", "--single-item", f"train@{KEY}", **variables)
    first = None
    while process.poll() is None:
        for file in (project.folder / "build/trainings").glob("*/progress.json"):
            first = first or file.stat().st_mtime
        time.sleep(0.02)
    seconds = time.time() - start
    memory.done.set()
    memory.join()
    output, _ = process.communicate()
    if process.returncode or first is None:
        raise RuntimeError(output)
    return {"start-up": first - start, "seconds": seconds, **memory.peaks}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of seconds, and the largest memory."""
    return {
        **{name: round(median(run[name] for run in runs), 1) for name in ("start-up", "seconds")},
        "leader, MB": {
            kind: max(sum(run[name][kind] for name in LEADERS) for run in runs)
            for kind in ("RSS", "PSS")
        },
    }


def measure(*, search: bool) -> dict[str, Any]:
    """All figures."""
    from pipeline.cluster.environment import prepare
    from pipeline.config.settings import load

    result: dict[str, Any] = {"machine": processor(), "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as folder:
        project = Project.create(Path(folder, "project"))
        project.repro("pack@synthetic.64x32")
        measure_run(project, {})  # fills caches
        result["alone"] = summarise([measure_run(project, {}) for _ in range(REPEATS)])
        print(result, flush=True)
        os.chdir(project.folder)
        prepare(load())
        os.environ["PYTHONPATH"] = str(project.folder)
        from pipeline.cluster.session import open_shared_session

        with open_shared_session():
            shared = {name: value for name, value in os.environ.items() if "RAY" in name}
            result["shared"] = summarise([measure_run(project, shared) for _ in range(REPEATS)])
        print(result["shared"], flush=True)
        project.run("python", "-m", "pipeline.repro", "table4f")
        start = time.time()
        project.run("python", "-m", "pipeline.repro", "table4f")
        result["repro with no work"] = round(time.time() - start, 1)
    if search:
        shutil.rmtree(ROOT / "build/searches", ignore_errors=True)
        start = time.time()
        subprocess.run(
            ["dvc", "repro", "--force", "--single-item", "searches/dvc.yaml:search@sigma"],
            cwd=ROOT, check=True,
        )  # fmt: skip
        result["search sigma"] = round(time.time() - start, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--search", action="store_true", help="run the search sigma, too")
    result = measure(search=parser.parse_args().search)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
