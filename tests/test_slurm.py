"""deploy/slurm.sbatch with stand-ins for Slurm and Ray, and with both in earnest on two nodes."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from project import Project, same, wait_for

from pipeline.cluster.resources import cores

SCRIPT = Path(__file__).parents[1] / "deploy/slurm.sbatch"
STAND_INS = {
    "scontrol": 'if [ "$1" = show ]; then echo $HEAD; echo node2; else echo "$@" >>calls; fi',
    # On one node alone.
    "srun": """
while [ "${1#-}" != "$1" ]; do echo "$1" >>options; shift; done
exec env --default-signal=INT "$@"  # of a job in the background
""",
    "ray": """
echo "ray $*" >>calls
[ "$1" = symmetric-run ] || exit 0
if [ -s down ]; then sed -i 1d down; exit 0; fi  # a line for each start that fails
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


def start(folder: Path, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
    variables = {
        "HEAD": "node1",
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_PROCID": "0",
        "SLURM_CPUS_ON_NODE": "16",
        "SLURM_GPUS_ON_NODE": "4",
        "SCRATCH": str(folder / "scratch"),
        "HOME": str(folder),
        "PATH": os.environ["PATH"],
        **changes,
    }
    return subprocess.Popen(["bash", SCRIPT, *arguments], env=variables, cwd=folder)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("code", [0, 3])
def test_the_first_node_runs_the_command_on_the_rays_of_all(folder: Path, code: int) -> None:
    (folder / "code").write_text(str(code))
    assert bool(start(folder, "repro", "ONLY=table4f").wait(30)) == bool(code)
    left, run, command = calls(folder)
    assert left == "ray stop --force"
    expected = "--address node1:6379 --min-nodes 2 --num-cpus=16 --num-gpus=4 -- setsid --wait"
    assert run.startswith(f"ray symmetric-run {expected}")
    assert command == "make repro ONLY=table4f"
    token = folder / ".ray/auth_token"
    assert re.fullmatch("[0-9a-f]{64}", token.read_text())
    assert token.stat().st_mode & 0o777 == 0o600


def starts(folder: Path) -> int:
    """How often Ray was started."""
    return sum(call.startswith("ray symmetric-run") for call in calls(folder))


@pytest.mark.parametrize(("failures", "tries", "runs"), [(0, 1, True), (2, 3, True), (3, 3, False)])
def test_a_ray_that_does_not_start_has_three_tries(
    folder: Path, failures: int, tries: int, runs: bool
) -> None:
    (folder / "down").write_text("failure\n" * failures)
    assert (start(folder).wait(30) == 0) == runs
    assert starts(folder) == tries
    assert ("make repro" in calls(folder)) == runs


@pytest.mark.parametrize(("is_up", "tries"), [(True, 3), (False, 1)])
def test_another_node_tries_again_while_the_first_is_up(
    folder: Path, is_up: bool, tries: int
) -> None:
    (folder / "down").write_text("failure\n" * 3)
    with socket.create_server(("127.0.0.1", 0)) as first:
        port = str(first.getsockname()[1])
        if not is_up:
            first.close()
        assert start(folder, HEAD="127.0.0.1", RAY_PORT=port, SLURM_PROCID="1").wait(30) == 0
    assert starts(folder) == tries
    assert "make repro" not in calls(folder)


def test_everything_is_made_where_nothing_is_named(folder: Path) -> None:
    (folder / ".ray").mkdir()
    (folder / ".ray/auth_token").write_text("of the user")
    assert start(folder).wait(30) == 0
    assert calls(folder)[-1] == "make repro"
    assert (folder / ".ray/auth_token").read_text() == "of the user"


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
    assert options == ["--wait=180", "--overlap", "--nodes=1", "--ntasks=1", "--nodelist=node1"]
    assert ends == ["stopped", *(["requeue 7"] if requeued else [])]


KEY = "synthetic.stage3.quick.0"
TRAIN = ("python", "-m", "pipeline.stages.train", KEY)
MAKEFILE = f"repro:\n\t@{' '.join(TRAIN)}\n"  # without the installation
TOOLS = ("slurmctld", "slurmd", "munged", "ip")
EPOCHS = 16
LINE = "            self.fit_state = epoch.state\n"  # once an epoch
CONF = """
ClusterName=tests
SlurmctldHost=node1(10.77.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge,cred_expire=5
StateSaveLocation={folder}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir={folder}/%n
SlurmdPidFile={folder}/%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MessageTimeout=60
NodeName=node1 NodeAddr=10.77.0.1 CPUs={cpus}
NodeName=node2 NodeAddr=10.77.0.2 CPUs={cpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
"""
# Each node has processes and a scratch folder of its own, as `ray stop` ends all Rays of a machine.
MACHINES = """
set -eu
hostname node1
mount -t tmpfs none /run
mount --bind hosts /etc/hosts
ip netns add node2
ip link add eth0 type veth peer name eth0 netns node2
ip addr add 10.77.0.1/24 dev eth0
ip -n node2 addr add 10.77.0.2/24 dev eth0
for network in "" "-n node2"; do
  ip $network link set lo up
  ip $network link set eth0 up
done
munged --foreground --force --socket "$PWD/munge" --key-file "$PWD/key" --seed-file "$PWD/seed" \\
  --pid-file "$PWD/munged.pid" --log-file "$PWD/munged.log" &
until [ -S munge ]; do sleep 0.1; done
start_node() {
  unshare --uts --mount --pid --fork --kill-child --mount-proc bash -c '
    hostname $0
    mount -t tmpfs none /mnt
    slurmd -D -N $0 & wait' "$1"
}
export -f start_node
start_node node1 &
nsenter --net=/run/netns/node2 bash -c 'start_node node2' &
exec slurmctld -D
"""

Call = Callable[..., str]


@contextmanager
def machines(folder: Path) -> Iterator[Call]:
    """Slurm with two nodes, in namespaces of this machine; yields what calls a command there."""
    apart = ["unshare", "--uts", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("nodes with processes of their own need the right to unshare")
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, cpus=max(cores() // 2, 1)))
    (folder / "hosts").write_text("127.0.0.1 localhost\n10.77.0.1 node1\n10.77.0.2 node2\n")
    (folder / "key").write_bytes(secrets.token_bytes(64))
    (folder / "key").chmod(0o600)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*apart, "--mount-proc", "bash", "-c", MACHINES],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )

    def call(*command: str | Path, **variables: str) -> str:
        [inside] = psutil.Process(process.pid).children()
        enter = ("nsenter", "--target", str(inside.pid), "--uts", "--net", "--mount", "--pid")
        words = [*enter, f"--wd={Path.cwd()}", *map(str, command)]
        return subprocess.check_output(words, env={**environment, **variables}, text=True).strip()

    def idle() -> bool:
        with suppress(ValueError, subprocess.CalledProcessError):  # nobody answers yet
            return call("sinfo", "--noheader", "--format=%T %D") == "idle 2"
        return False

    try:
        wait_for(idle, "two nodes")
        yield call
    finally:
        process.kill()  # with all that runs there; unshare blocks other signals
        process.wait()


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.skipif(
    not all(map(shutil.which, TOOLS)), reason="Slurm is not installed, or munge, or iproute2"
)
def test_a_training_that_its_time_limit_stops_ends_with_the_weights_of_an_undisturbed_one(
    untrained: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, one on each node. The other training has both on this machine, without Slurm."""
    params = yaml.safe_load((untrained.folder / "params.yaml").read_text())
    params["workers"] = 2
    params["recipes"]["quick"]["training"]["epochs"] = EPOCHS
    (untrained.folder / "params.yaml").write_text(yaml.safe_dump(params))
    undisturbed = untrained.copy(tmp_path / "undisturbed")
    undisturbed.run(*TRAIN)

    # Slurm looks at its time limits twice a minute.
    untrained.edit(
        "pipeline/training/worker.py", LINE, f"            __import__('time').sleep(3)\n{LINE}"
    )
    (untrained.folder / "Makefile").write_text(MAKEFILE)
    (untrained.folder / ".venv").symlink_to(sys.prefix)
    monkeypatch.chdir(untrained.folder)
    variables = {**untrained.environment, "HOME": str(tmp_path), "SCRATCH": "/mnt"}
    (tmp_path / "slurm").mkdir()
    with machines(tmp_path / "slurm") as call:
        job = call("sbatch", "--parsable", "--nodes=2", SCRIPT, "repro", **variables)
        log = untrained.folder / f"slurm-{job}.log"

        def limit(minutes: int) -> None:
            call("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")

        wait_for(lambda: untrained.epochs(KEY) >= 2, "two epochs", 1200)
        minutes = int(call("squeue", "--noheader", "--format=%M", "--job", job).split(":")[-2])
        limit(minutes + 2)
        wait_for(lambda: "the command stops" in log.read_text(), "the end before the limit")
        assert 2 <= untrained.epochs(KEY) < EPOCHS
        limit(60)  # of the second start
        wait_for(lambda: "Restarts=1" in call("scontrol", "show", "job", job), "the second start")
        wait_for(lambda: not call("squeue", "--noheader", "--job", job), "the end", 1200)
        assert "JobState=COMPLETED" in call("scontrol", "show", "job", job), log.read_text()
    history = pd.read_csv(untrained.folder / "runs" / KEY / "history.csv")
    assert history.epoch.tolist() == list(range(1, EPOCHS + 1))
    assert same(untrained.weights(KEY), undisturbed.weights(KEY))
