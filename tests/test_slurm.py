"""deploy/slurm.sbatch, with stand-ins for Slurm and Ray: its command, its end, its signals."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from project import wait_for

SCRIPT = Path(__file__).parents[1] / "deploy/slurm.sbatch"
STAND_INS = {
    "scontrol": 'if [ "$1" = show ]; then echo node1; echo node2; else echo "$@" >>calls; fi',
    # On the first node alone.
    "srun": """
while [ "${1#-}" != "$1" ]; do echo "$1" >>options; shift; done
SLURM_PROCID=0 exec env --default-signal=INT "$@"  # of a job in the background
""",
    "ray": """
echo "ray $*" >>calls
[ "$1" = symmetric-run ] && [ ! -e down ] || exit 0
while [ "$1" != -- ]; do shift; done
shift
"$@"
""",
    "make": """
echo "make $*" >>calls
trap 'echo stopped >>calls; exit 130' INT
if [ -e wait ]; then touch runs; for i in $(seq 200); do sleep 0.1; done; fi
exit "$(cat code)"
""",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout whose .venv has the stand-ins."""
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "code").write_text("0")
    return tmp_path


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    variables = {
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_ON_NODE": "16",
        "SLURM_GPUS_ON_NODE": "4",
        "SCRATCH": str(folder / "scratch"),
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
    }
    return subprocess.Popen(["bash", SCRIPT, *arguments], env=variables, cwd=folder)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("code", [0, 3])
def test_the_first_node_runs_the_command_on_the_rays_of_all(folder: Path, code: int) -> None:
    (folder / "code").write_text(str(code))
    assert bool(start(folder, "repro", "ONLY=table4f").wait(30)) == bool(code)
    token, left, run, command = calls(folder)
    assert token == "ray get-auth-token --generate"
    assert left == "ray stop --force"
    expected = "--address node1:6379 --min-nodes 2 --num-cpus=16 --num-gpus=4 -- setsid --wait"
    assert run.startswith(f"ray symmetric-run {expected}")
    assert command == "make repro ONLY=table4f"


def test_a_ray_that_does_not_start_fails_the_job(folder: Path) -> None:
    (folder / "down").touch()
    assert start(folder).wait(30) != 0
    assert not any(call.startswith("make") for call in calls(folder))


def test_everything_is_made_where_nothing_is_named(folder: Path) -> None:
    (folder / ".ray").mkdir()
    (folder / ".ray/auth_token").touch()
    assert start(folder).wait(30) == 0
    assert calls(folder)[-1] == "make repro"
    assert not any("get-auth-token" in call for call in calls(folder))


@pytest.mark.parametrize(("number", "requeued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_the_command_stops_before_the_job_ends(
    folder: Path, number: signal.Signals, requeued: bool
) -> None:
    """The time limit queues the job again. After a preemption or scancel Slurm decides."""
    (folder / "wait").touch()
    process = start(folder)
    wait_for(lambda: (folder / "runs").exists(), "the command", 30)
    process.send_signal(number)
    assert process.wait(30) != 0
    ends = calls(folder)[calls(folder).index("make repro") + 1 :]
    options = (folder / "options").read_text().split()
    assert options == ["--wait=20", "--overlap", "--nodes=1", "--ntasks=1", "--nodelist=node1"]
    assert ends == ["stopped", *(["requeue 7"] if requeued else [])]
