"""A full disk under a folder to which commands write: one line names the folder, nothing half made
stays, and the same command goes on after space was made. On small disks of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONNECT = (
    "from pipeline.shell import command; from pipeline.tracking import server\n"
    "command(server.connect)"
)
LOCK = (
    "from pipeline.shell import LOGS, command, lock_work\n"
    "command(lambda: lock_work(LOGS / 'repro.lock', 'making results').__enter__())"
)
JOB = """
import sys
from threading import Event
from pipeline.plan.runs import Run
from pipeline.repro import Job
job = Job(Run("d", "n", "r", 0), [], 1)
job.stages = ["a"]
sys.exit(0 if job.work(Event()) else job.last)
"""
DVC_YAML = """
stages:
  a:
    cmd: echo run >> runs && head -c 300000 /dev/zero > a
    outs: [a]
"""


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.parametrize(
    ("folder", "limit", "script", "reason", "left"),
    [
        (
            "",
            "size=100k",
            CONNECT,
            "full): make space in {}, and the same command resumes",
            "build",
        ),
        ("build", "nr_inodes=1", LOCK, "No space left on device: 'build/logs'", ""),
        (".dvc/cache", "size=100k", JOB, "No space left on device: make space in {}", None),
    ],
    ids=["mlflow.db", "build", "cache"],
)
def test_a_full_disk_is_named_and_the_same_command_goes_on(
    tmp_path: Path, folder: str, limit: str, script: str, reason: str, left: str | None
) -> None:
    project = tmp_path / "project"
    place = project / folder
    place.mkdir(parents=True)
    (tmp_path / "script.py").write_text(script)
    if script == JOB:
        (project / ".dvc/config").write_text("[core]\nno_scm = true\nanalytics = false\n")
        (project / "dvc.yaml").write_text(DVC_YAML)
    mount = f"mount -t tmpfs -o {limit} none {place}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("a disk of its own needs the right to unshare --mount")
    command = f"cd {project} && {sys.executable} ../script.py"
    more = f"mount -o remount,size=20m,nr_inodes=1000 {place}"
    process = subprocess.run(
        [
            *("unshare", "--mount", "sh", "-c"),
            f"{mount}; {command}; echo $?; ls {place}; {more} && {command}; echo $?",
        ],
        env={
            **{name: value for name, value in os.environ.items() if "MLFLOW" not in name},
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    [line] = process.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(reason.format(place))
    first, *names, second = process.stdout.split()
    assert (first, second) == ("1", "0")
    if script == JOB:
        assert (project / "runs").read_text() == "run\n" * 2  # once for each command
        assert (project / "dvc.lock").exists()
    else:
        assert " ".join(names) == left
