"""A Ray cluster of several nodes, here, which share nothing but a store; what they lose."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import mlflow
import pandas as pd
import pytest
import yaml
from project import ROOT, Project, kill_all, wait_for
from pyarrow.fs import FileSelector
from ray.cluster_utils import Cluster
from servers import (
    ACCOUNT,
    KEYS,
    answers,
    bucket,
    endpoint,
    free_port,
    keys,
    mlflow_with_accounts,
    postgres,
)

from pipeline.cluster.storage import SEARCHES, Storage

KEY = "synthetic.stage3.quick.0"
TRAIN = ("python", "-m", "pipeline.stages.train", KEY)
EPOCHS = 8  # of a training, time to lose a node in
TRIAL = 6  # of a trial
COLUMNS = ["run_id", "tags.trial", "tags.state", "metrics.loss"]  # of a trial in MLflow
RAY = str(Path(sys.executable).with_name("ray"))

# Ray leaves its client server's logs to be closed by the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*ray_client_server.(err|out)")


@pytest.fixture
def outside() -> int:
    """Port by which the head is reached from a machine that is no node."""
    return free_port()


@pytest.fixture
def cluster(outside: int) -> Iterator[Cluster]:
    """A head that computes nothing."""
    with keys():
        head = {"num_cpus": 0, "ray_client_server_port": outside, "include_dashboard": False}
        ray = Cluster(initialize_head=True, head_node_args=head)
        yield ray
        ray.shutdown()


@pytest.fixture
def project(prepared: Project, tmp_path: Path) -> Project:
    """Two workers, and epochs enough to lose one of them in."""
    project = prepared.copy(tmp_path / "project")
    configure(project, workers=2)
    return project


def configure(project: Project, epochs: int = EPOCHS, **changes: Any) -> None:
    params = yaml.safe_load((project.folder / "params.yaml").read_text())
    params["recipes"]["quick"]["training"]["epochs"] = epochs
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params | changes))


class Node:
    """A node with one core, which sees neither the project nor this code."""

    def __init__(self, cluster: Cluster, project: Project) -> None:
        hidden = (project.folder, ROOT / "pipeline", ROOT / "ianet")
        hide = [f"mount -t tmpfs none {folder}" for folder in hidden]
        start = f"cd / && exec {RAY} start --block --num-cpus 1 --address {cluster.address}"
        script = " && ".join([*hide, start])
        alone = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        if subprocess.run([*alone, "mount -t tmpfs none /mnt"], capture_output=True).returncode:
            pytest.skip("a node with files of its own needs the right to unshare --mount")
        log = project.folder.with_name(f"node-{uuid4().hex}.log")
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*alone, script],
                env={**os.environ, "XDG_CACHE_HOME": str(project.folder)},  # hidden, so its own
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait_for(lambda: "Ray runtime started" in log.read_text(), "a node", 180)

    def lose(self) -> None:
        kill_all(self.process)


@contextmanager
def nodes(cluster: Cluster, project: Project, number: int) -> Iterator[list[Node]]:
    """So many, and those that are added to the list."""
    members: list[Node] = []
    try:
        members += (Node(cluster, project) for _ in range(number))
        yield members
    finally:
        for node in members:
            if node.process.poll() is None:
                node.lose()


def test_a_head_that_dies_costs_nothing(project: Project) -> None:
    port = free_port()
    start = (RAY, "start", "--head", "--block", "--num-cpus", "2", "--port", str(port))
    options = ("--include-dashboard", "false", "--ray-client-server-port", str(free_port()))
    environment = {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }

    @contextmanager
    def head() -> Iterator[None]:
        process = project.start(*start, *options, **environment)
        try:
            wait_for(lambda: answers(port), "the head", 180)
            yield
        finally:
            kill_all(process)
            process.communicate()

    with head():
        process = project.start(*TRAIN, **environment)
        wait_for(lambda: process.poll() is not None or project.epochs(KEY) >= 2, "two epochs")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    assert output.splitlines()[-1].startswith(f"error: Ray lost training {KEY}"), output
    with head():
        output = project.run(*TRAIN, **environment)
    history = pd.read_csv(project.folder / "runs" / KEY / "history.csv")
    assert history.epoch.tolist() == list(range(1, EPOCHS + 1))


def test_nodes_that_share_nothing_train_and_score_and_losses_cost_nothing(
    cluster: Cluster, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code comes by Ray, data by a store that fails now and then; a node is lost and another
    joins; MLflow, with accounts, records in PostgreSQL and files in the store, is away for a while.
    """
    with (
        bucket() as url,
        postgres() as database,
        mlflow_with_accounts(database, "s3://reid/mlflow", endpoint(url)) as server,
        nodes(cluster, project, 2) as members,
    ):
        environment = {"MLFLOW_TRACKING_URI": server.url, **KEYS}
        project.edit("params.yaml", "address: null", f"address: {cluster.address}")
        with pytest.raises(mlflow.MlflowException, match="not authenticated"):
            server_runs(server.url)
        for name, value in ACCOUNT.items():
            monkeypatch.setenv(name, value)
        environment |= ACCOUNT
        output = project.run(*TRAIN, expect=1, **environment)
        assert "of the Ray cluster does not see" in output
        assert "put the project on a file system that all nodes share" in output
        assert "Traceback" not in output

        project.edit("params.yaml", "storage: null", f"storage: {url}")
        process = project.start(*TRAIN, **environment)
        wait_for(lambda: server_epochs(server.url) or process.poll() is not None, "an epoch")
        server.kill()
        members[0].lose()
        members.append(Node(cluster, project))
        server.start()
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        project.run("python", "-m", "pipeline.stages.evaluate", KEY, **environment)
        assert server_epochs(server.url) == list(range(1, EPOCHS + 1))
        [run] = [run for run in server_runs(server.url) if run.info.status == "FINISHED"]
        client = mlflow.MlflowClient(server.url)
        for name in ("history.csv", "training.json"):
            sent = client.download_artifacts(run.info.run_id, name, str(tmp_path))
            assert Path(sent).read_bytes() == (project.folder / "runs" / KEY / name).read_bytes()
        store = Storage(url.replace("reid/tests", "reid/mlflow"))
        assert store.files.get_file_info(FileSelector(store.path(), recursive=True))
    history = pd.read_csv(project.folder / "runs" / KEY / "history.csv")
    assert history.epoch.tolist() == list(range(1, EPOCHS + 1))


def test_a_search_led_from_outside_goes_on_when_the_node_of_a_trial_is_lost_and_another_joins(
    cluster: Cluster, outside: int, project: Project, tmp_path: Path
) -> None:
    """As from a laptop. The only node that computes: its first trial is done, and stays so; its
    second goes on from its last epoch. Each epoch is recorded once.
    """
    searching = project
    sheet = yaml.safe_load((ROOT / "experiments/search_sigma.yaml").read_text())
    sheet["network"] = "stage3"
    sheet["space"] = {"network.after.stage3.sigma.0": {"values": [2, 5]}}
    (searching.folder / "experiments/search_sigma.yaml").write_text(yaml.safe_dump(sheet))

    def trials() -> pd.DataFrame:
        runs = searching.tracked()
        # Before there is one, there are no such columns.
        return runs.reindex(columns=COLUMNS).dropna(subset="tags.trial")

    with bucket() as url, nodes(cluster, searching, 1) as members:
        reached = {"address": f"ray://127.0.0.1:{outside}", "storage": url}
        configure(searching, TRIAL, workers=1, cluster=reached)
        process = searching.start("python", "-m", "pipeline.stages.search", "sigma", **KEYS)

        def two_train() -> bool:
            return process.poll() is not None or trials()["metrics.loss"].count() == 2

        wait_for(two_train, "an epoch of the second trial")
        assert process.poll() is None, process.communicate()[0]
        # Tune's own loggers are off there, too.
        store = Storage(url)
        saved = store.files.get_file_info(FileSelector(store.path(SEARCHES), recursive=True))
        names = {one.base_name for one in saved}
        assert names
        assert "progress.csv" not in names
        members[0].lose()
        [finished] = trials()["tags.state"].dropna()
        assert finished == "done"
        members.append(Node(cluster, searching))
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    assert "2 trials, 2 done, 0 stopped early, 0 failed" in output
    assert "Warning" not in output
    table = pd.read_parquet(searching.folder / "results/searches/sigma/trials.parquet")
    tracked = trials()
    assert sorted(tracked["tags.trial"]) == sorted(table.trial)
    client = mlflow.MlflowClient()
    for run in tracked.run_id:
        curve = client.get_metric_history(run, "held-out_mAP")
        assert [one.step for one in curve] == list(range(1, TRIAL + 1))


def server_runs(url: str) -> list[Any]:
    """The runs that MLflow has."""
    client = mlflow.MlflowClient(url)
    experiment = client.get_experiment_by_name("ianet")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def server_epochs(url: str) -> list[int]:
    """Of which MLflow has the loss."""
    client = mlflow.MlflowClient(url)
    return [
        report.step
        for run in server_runs(url)
        for report in client.get_metric_history(run.info.run_id, "loss")
    ]
