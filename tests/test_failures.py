"""What a small project may lose: a line says so, or the same command resumes. Real processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time

import pandas as pd
import pytest
from project import EPOCHS, Project, wait_for
from ray import available_resources
from ray.util import placement_group, remove_placement_group
from servers import free_port, mlflow_server

from pipeline.cluster.address import LOCAL_RAY
from pipeline.cluster.resources import cores
from pipeline.cluster.session import open_shared_session

KEY = "synthetic.stage3.quick.0"
TRAIN = ("python", "-m", "pipeline.stages.train", KEY)
BASE = "synthetic.base.quick.0"  # the other run of Table 4f here
RIGHT = "        if self.sia is None:\n            assert self.cia is not None\n"
WRONG = "        features = features.mean(7)\n" + RIGHT
OF_RAY = ("RAY_", LOCAL_RAY)  # variables by which a command finds a shared Ray, and its token


def test_ctrl_c_leaves_nothing_behind_but_the_checkpoint(untrained: Project) -> None:
    process = untrained.start("dvc", "repro", f"train@{KEY}")
    lease = untrained.folder / f"build/leases/trainings/{KEY}.json"
    wait_for(lease.exists, "the training")
    # Somebody else, in the same folder, by DVC and without.
    second = untrained.start("dvc", "repro", f"train@{KEY}")
    third = untrained.start(*TRAIN)
    output, _ = second.communicate(timeout=120)
    assert second.returncode != 0
    assert "is busy" in output
    output, _ = third.communicate(timeout=120)
    assert third.returncode == 1
    assert f" is training {KEY} on {socket.gethostname()}, process " in output
    wait_for(lambda: untrained.epochs(KEY) >= 1, "the first epoch")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in output
    assert not (untrained.folder / "runs" / KEY).exists()
    assert untrained.epochs(KEY) >= 1
    assert f"train@{KEY}" in untrained.repro(f"train@{KEY}")
    history = pd.read_csv(untrained.folder / "runs" / KEY / "history.csv")
    assert history.epoch.tolist() == list(range(1, EPOCHS + 1))


def test_ctrl_c_ends_a_training_that_waits_for_cores(untrained: Project) -> None:
    with open_shared_session():
        group = placement_group([{"CPU": cores()}])
        assert group.wait(30)
        shared = {name: one for name, one in os.environ.items() if name.startswith(OF_RAY)}
        process = untrained.start(*TRAIN, **shared)
        wait_for(lambda: process.poll() is not None or len(untrained.tracked()), "its MLflow run")
        time.sleep(5)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 1, output
        assert output.endswith("stopped; the same command resumes from here\n")
        assert "Traceback" not in output
        # Nothing asks for the cores any more.
        remove_placement_group(group)
        wait_for(lambda: available_resources().get("CPU") == cores(), "the cores", 60)
        time.sleep(3)
        assert available_resources()["CPU"] == cores()
        assert untrained.epochs(KEY) == 0


def test_runs_at_a_time_can_be_stopped_and_fail_alone_and_leave_what_dvc_would(
    untrained: Project,
) -> None:
    untrained.edit("ianet/blocks/ia.py", RIGHT, WRONG)
    # As of nohup, or of `&` in a script.
    command = "trap '' INT; exec python -m pipeline.repro table4f"
    process = untrained.start("sh", "-c", command)
    wait_for((untrained.folder / f"build/logs/{BASE}.log").exists, "the first run")
    output = untrained.run("python", "-m", "pipeline.repro", "table4f", expect=1)
    assert output.startswith("error: another process is making results in this folder: wait for")
    checkpoint = f"build/trainings/{BASE}.*/*.checkpoint"
    wait_for(lambda: list(untrained.folder.glob(checkpoint)), "the first checkpoint")
    assert untrained.listens_on() == {"127.0.0.1"}
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert untrained.killed() == []
    assert "2 runs, 2 of them to do" in output
    assert "stopped; the same command resumes from here" in output
    assert "Traceback" not in output
    assert not (untrained.folder / "runs" / BASE).exists()
    assert list(untrained.folder.glob(checkpoint))

    output = untrained.run("python", "-m", "pipeline.repro", "table4f", expect=1)
    assert f"error: 1 of 2 runs failed:\n  {KEY}: error: IndexError: Dimension out of ran" in output
    assert re.search(r", in ianet/blocks/ia\.py, line \d+: features = features\.mean\(7\)", output)
    assert (untrained.folder / f"results/synthetic/scores/{BASE}.json").exists()
    history = pd.read_csv(untrained.folder / "runs" / BASE / "history.csv")
    assert history.epoch.tolist() == list(range(1, EPOCHS + 1))

    page = (untrained.folder / "results/report.html").read_text()
    [row] = re.findall(rf'<tr id="{re.escape(KEY)}">(.*?)</tr>', page, re.S)
    assert "failed</b>" in row
    assert "IndexError: Dimension out of range" in row

    log = (untrained.folder / f"build/logs/{KEY}.log").read_text()
    assert 'ianet/blocks/ia.py", line ' in log
    assert "in forward\n    features = features.mean(7)" in log
    [failed] = untrained.tracked().query(f"`tags.run` == '{KEY}'").to_dict("records")
    assert failed["status"] == "FAILED"
    assert str(failed["tags.failure"]).startswith("IndexError: Dimension out of range")
    untrained.edit("ianet/blocks/ia.py", WRONG, RIGHT)
    output = untrained.run("python", "-m", "pipeline.repro", "table4f")
    assert "2 runs, 2 of them to do" in output  # evaluations depend on ia.py, trainings of base not
    assert re.search(rf"run \d of 2: {re.escape(KEY)}: top-1 ", output)
    assert (untrained.folder / "results/tables/table4f.csv").exists()
    page = (untrained.folder / "results/report.html").read_text()
    assert f'<tr id="{KEY}">' in page
    assert "failed</b>" not in page
    assert untrained.repro("table4f") == []
    output = untrained.run("python", "-m", "pipeline.repro", "table4f")
    assert output == "nothing to do: 2 runs and all results are up to date\n"


def test_an_mlflow_server_that_is_not_there_is_reported_before_training(untrained: Project) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    output = untrained.run(*TRAIN, expect=1, MLFLOW_TRACKING_URI=uri)
    assert f"error: MLflow at {uri} cannot be used" in output
    assert "Traceback" not in output
    assert untrained.epochs(KEY) == 0


def test_a_training_outlives_its_mlflow_server(untrained: Project) -> None:
    database = f"sqlite:///{untrained.folder}/server.db"
    with mlflow_server(database, untrained.folder / "artifacts") as server:
        command = TRAIN
        process = untrained.start(*command, MLFLOW_TRACKING_URI=server.url)
        wait_for(lambda: untrained.epochs(KEY) >= 1, "the first epoch")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert "MLflow went away" in output
    assert "`python -m pipeline.sync` sends them" in output
    assert (untrained.folder / "runs" / KEY / "weights.safetensors").exists()
    history = pd.read_csv(untrained.folder / "runs" / KEY / "history.csv")
    assert history.epoch.tolist() == list(range(1, EPOCHS + 1))


def test_a_full_disk_is_reported_in_one_line(untrained: Project) -> None:
    full = untrained.folder / "build/trainings"
    full.mkdir(parents=True, exist_ok=True)
    disk = f"mount -t tmpfs -o size=1m none {full}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", disk], capture_output=True).returncode:
        pytest.skip("a disk of its own needs the right to unshare --mount")
    command = f"{disk} && exec {' '.join(TRAIN)}"
    output = untrained.run("unshare", "--mount", "sh", "-c", command, expect=1)
    [error] = [line for line in output.splitlines() if line.startswith("error: ")]
    place = f"'{socket.gethostname()}:{full}/{KEY}."
    assert f"No space left on device: {place}" in error
    assert "Traceback" not in output
