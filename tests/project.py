"""A copy of the project with a tiny data set, in which whole-pipeline tests run real processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import psutil
import torch
import yaml
from safetensors.torch import load_file

from pipeline.tracking.server import lock_first_use

ROOT = Path(__file__).parents[1]
EPOCHS = 3


class Project:
    """A copy of the project with tiny parameters."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path) -> Project:
        """A new one, in which nothing has run but the plan."""
        project = cls(folder)
        for name in ("ianet", "pipeline", "experiments", ".dvc/config", ".dvcignore"):
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["datasets"]["synthetic"] |= {
            "synthetic": {
                "train_identities": 6,
                "test_identities": 5,
                "distractors": 4,
                "junk": 2,
                "seed": 0,
            },
            "held_out": 2,
            "networks": ["base", "stage3"],
            "seeds": [0],
        }
        params["checkpoint_minutes"] = 0  # each epoch
        params["recipes"]["quick"]["network"]["weights"] = "none"
        params["recipes"]["quick"]["training"] |= {
            "height": 64,
            "width": 32,
            "epochs": EPOCHS,
            "batch": 16,
        }
        project._keep_few_experiments()
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
        (folder / "mlflow.db").write_bytes(empty_database())
        # Once, as its processes keep no bytecode where PYTHONDONTWRITEBYTECODE is set.
        project.run("python", "-m", "compileall", "-q", "ianet", "pipeline")
        project.run("git", "init", "--quiet")
        project.run("python", "-m", "pipeline.plan")
        return project

    @property
    def environment(self) -> dict[str, str]:
        """Of its commands: its own code, in the stages and in Ray's workers."""
        return {
            **{name: value for name, value in os.environ.items() if "MLFLOW" not in name},
            "PYTHONPATH": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def _keep_few_experiments(self) -> None:
        """One of each kind, with the two networks that are run."""
        experiments = self.folder / "experiments"
        for path in experiments.glob("*.yaml"):
            if path.stem not in ("table4f", "figure7", "figure8", "cost", "blocks", "ranks"):
                path.unlink()
        row = {"label": "stage 3", "network": "stage3"}
        for name, changes in {
            "table4f": {"seeds": {}},
            "figure7": {"at": [5], "rows": [row]},
            "figure8": {"network": "stage3", "stage": "stage3"},
            "blocks": {"seeds": {}, "rows": [row]},
            "ranks": {"networks": ["stage3"], "queries": 1, "neighbours": 3},
            "cost": {"recipe": "quick", "rows": [row]},
        }.items():
            content = yaml.safe_load((experiments / f"{name}.yaml").read_text())
            (experiments / f"{name}.yaml").write_text(yaml.safe_dump({**content, **changes}))

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str, expect: int = 0, **environment: str) -> str:
        process = self.start(*command, **environment)
        try:
            output, _ = process.communicate(timeout=600)
        except subprocess.TimeoutExpired:
            kill_all(process)
            raise
        assert process.returncode == expect, output
        return output

    def repro(self, *targets: str) -> list[str]:
        """The stages that `dvc repro` really ran."""
        output = self.run("dvc", "repro", *targets)
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running")]

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def weights(self, key: str, folder: str = "runs") -> dict[str, torch.Tensor]:
        return load_file(self.folder / folder / key / "weights.safetensors")

    def copy(self, folder: Path) -> Project:
        """Another one, with the same data, runs and state of DVC."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def epochs(self, key: str) -> int:
        """That a training under way has done."""
        files = list((self.folder / "build/trainings").glob(f"{key}.*/progress.json"))
        return len(json.loads(files[0].read_text())["history"]) if files else 0

    def tracked(self) -> pd.DataFrame:
        """Its runs in MLflow, which a process of it may be using for the first time."""
        mlflow.set_tracking_uri(f"sqlite:///{self.folder}/mlflow.db")
        with lock_first_use(self.folder):
            return mlflow.search_runs(experiment_names=["ianet"])

    def killed(self, patience: float = 30) -> list[int]:
        """Kill what is left of its processes, those of Ray having so many seconds to end by
        themselves; their ids.
        """
        until = time.monotonic() + patience
        while (left := self._running()) and time.monotonic() < until:
            time.sleep(0.5)
        for process in left:
            kill(process)
        return [process.pid for process in left]

    def listens_on(self) -> set[str]:
        """The addresses on which its processes listen."""
        addresses = set()
        for process in self._running():
            with suppress(psutil.NoSuchProcess):
                addresses |= {
                    connection.laddr.ip.removeprefix("::ffff:")
                    for connection in process.net_connections("inet")
                    if connection.status == psutil.CONN_LISTEN
                }
        return addresses

    def _running(self) -> list[psutil.Process]:
        """Agents of Ray write their names over their variables: their working directory tells."""
        processes = []
        for process in psutil.process_iter(["environ", "cwd", "status"]):
            variables, place = process.info["environ"], process.info["cwd"]
            path = variables.get("PYTHONPATH") if variables else place
            if path == str(self.folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
                processes.append(process)
        return processes


@cache
def empty_database() -> bytes:
    """Of MLflow, which takes 8 s of a core to make one."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        command = (sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{file}")
        subprocess.run(command, check=True, capture_output=True)
        return file.read_bytes()


def kill(process: psutil.Process) -> None:
    """If it has not ended meanwhile."""
    with suppress(psutil.NoSuchProcess):
        process.kill()


def kill_all(process: subprocess.Popen[Any]) -> None:
    """With the processes that it started, as a machine whose power fails."""
    for one in psutil.Process(process.pid).children(recursive=True):
        kill(one)
    process.kill()
    process.wait()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        answer = condition()
        if answer:
            return answer
        # A condition that costs something must leave the cores to what is waited for.
        time.sleep(min(2, max(0.1, 3 * (time.monotonic() - start))))
    if answer := condition():
        return answer
    raise AssertionError(f"{what} did not come in {seconds} s")
