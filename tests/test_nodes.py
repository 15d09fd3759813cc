"""A Ray cluster of several nodes, here: a run that loses one, and data that one does not see."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml
from project import Project, wait_for
from ray.cluster_utils import Cluster

RUN = ("synthetic", "stage3", "quick", "0")
KEY = "-".join(RUN)
EPOCHS = 20
RAY = str(Path(sys.executable).with_name("ray"))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that computes nothing, and a node with one core."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two workers, and epochs enough to lose one of them in."""
    made = Project(tmp_path_factory.mktemp("project"))
    params = yaml.safe_load((made.folder / "params.yaml").read_text())
    params["workers"] = 2
    params["recipes"]["quick"]["training"]["epochs"] = EPOCHS
    (made.folder / "params.yaml").write_text(yaml.safe_dump(params))
    made.repro("prepare@synthetic")
    return made


def test_a_run_on_two_nodes_outlives_one_when_another_joins(
    cluster: Cluster, project: Project
) -> None:
    lost = cluster.add_node(num_cpus=1)
    process = project.start("python", "-m", "pipeline.train", *RUN, RAY_ADDRESS=cluster.address)

    def epochs() -> int:
        files = list((project.folder / "build/training").glob(f"{KEY}-*/progress.jsonl"))
        return len(files[0].read_text().splitlines()) if files else 0

    wait_for(lambda: epochs() or process.poll() is not None, "the first epoch")
    cluster.remove_node(lost, allow_graceful=False)
    assert epochs() < EPOCHS
    cluster.add_node(num_cpus=1)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    history = pd.read_csv(project.folder / "runs" / KEY / "history.csv")
    assert history.epoch.tolist() == list(range(1, EPOCHS + 1))


def test_a_node_that_does_not_see_the_data_is_named(cluster: Cluster, project: Project) -> None:
    hidden = f"mount -t tmpfs none {project.folder} && exec {RAY} start --block --num-cpus 1"
    command = ["unshare", "--mount", "sh", "-c", f"{hidden} --address {cluster.address}"]
    if subprocess.run([*command[:2], "true"], capture_output=True).returncode:
        pytest.skip("a node with files of its own needs the right to unshare --mount")
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: len(cluster.global_state._live_node_ids()) == 3, "the node", 60)
        output = project.run(
            "python", "-m", "pipeline.train", *RUN, expect=1, RAY_ADDRESS=cluster.address
        )
    finally:
        for process in [*psutil.Process(node.pid).children(recursive=True), node]:
            process.kill()
        node.wait()
    assert "of the Ray cluster does not see" in output
    assert "put the project on a file system that all nodes share" in output
    assert "Traceback" not in output
