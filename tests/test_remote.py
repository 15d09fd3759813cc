"""Calls on the nodes of a Ray, and what the nodes see."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray.exceptions import WorkerCrashedError
from stand_ins import hold

from pipeline import scoring
from pipeline.cluster import remote
from pipeline.cluster.address import ADDRESS, LOCAL_RAY
from pipeline.config.settings import SettingsError
from pipeline.failures import CodeError

ROOT = Path(__file__).parents[1]
NICENESS = "RAY_worker_niceness"
pytestmark = pytest.mark.usefixtures("unnamed")


def test_a_computation_gets_the_share_of_one_of_several(
    monkeypatch: pytest.MonkeyPatch, stand_in: list[dict[str, Any]]
) -> None:
    hold(monkeypatch, (2, 16))
    assert remote.compute(lambda: 42, None, []) == 42
    assert stand_in == [{"num_cpus": 8, "num_gpus": 1}]


def test_ray_is_started_for_a_computation_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch, stand_in: list[dict[str, Any]], starts: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: bool(starts))
    hold(monkeypatch, (0, 2))
    assert remote.compute(lambda: 42, None, []) == 42
    assert len(starts) == 1
    assert stand_in == [{"num_cpus": 1, "num_gpus": 0}]


def fail_in_a_block() -> None:
    {}["stage"]


def test_an_error_of_code_in_a_computation_names_its_file_and_line(
    monkeypatch: pytest.MonkeyPatch, stand_in: list[dict[str, Any]]
) -> None:
    hold(monkeypatch, (0, 2))
    with pytest.raises(CodeError, match=r"^KeyError: 'stage', in tests/test_remote\.py, line \d+:"):
        remote.compute(fail_in_a_block, None, [])


OWN_RAY = {ADDRESS: "127.0.0.1:6379", LOCAL_RAY: "1"}
CLUSTER = {ADDRESS: "head:6379"}


@pytest.mark.parametrize(
    ("variables", "gpus", "calls"),
    [
        ({}, 0, []),  # nobody shares what this process uses
        ({}, 8, []),
        (OWN_RAY, 0, []),
        (OWN_RAY, 1, [{"num_cpus": 16, "num_gpus": 1}]),
        (OWN_RAY, 8, [{"num_cpus": 2, "num_gpus": 1}]),
        (CLUSTER, 0, [{"num_cpus": 1, "num_gpus": 0}]),
        (CLUSTER, 8, [{"num_cpus": 2, "num_gpus": 1}]),
    ],
)
def test_a_run_is_scored_on_a_gpu_that_ray_gives(
    monkeypatch: pytest.MonkeyPatch,
    stand_in: list[dict[str, Any]],
    variables: dict[str, str],
    gpus: int,
    calls: list[dict[str, int]],
) -> None:
    def assess(*arguments: Any, hold_out: bool) -> tuple[Any, ...]:
        return (*arguments, hold_out)

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    hold(monkeypatch, (gpus, 16))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(scoring, "load_network", lambda folder: f"network of {folder}")
    monkeypatch.setattr(scoring, "assess", assess)
    storage: Any = SimpleNamespace(
        url="s3://bucket", is_folder=False, publish=lambda folder, names: f"{folder} in the bucket"
    )
    scores: Any = scoring.score_run(Path("run"), "synthetic", "64x32", storage, 3, hold_out=True)
    place = "data/prepared/synthetic in the bucket"
    assert scores == ("network of run", "s3://bucket", place, "64x32", 3, True)
    assert stand_in == calls


def test_what_leads_is_called_here_or_on_the_node_that_a_client_reaches(
    monkeypatch: pytest.MonkeyPatch, stand_in: list[dict[str, Any]]
) -> None:
    assert remote.call_on_cluster(lambda: 42) == 42
    assert stand_in == []
    monkeypatch.setenv(ADDRESS, "ray://head:10001")
    context = SimpleNamespace(get_node_id=lambda: "0a" * 28)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    assert remote.call_on_cluster(lambda: 42) == 42
    [options] = stand_in
    assert options["num_cpus"] == 0
    assert options["scheduling_strategy"].node_id == "0a" * 28
    assert options["scheduling_strategy"].soft is False


def test_an_error_of_a_call_is_raised_as_it_was(
    monkeypatch: pytest.MonkeyPatch, stand_in: list[dict[str, Any]]
) -> None:
    cause = SettingsError("no such network")

    def get(waiting: Any) -> None:
        raise ray.exceptions.RayTaskError("function", "a long traceback", cause)

    hold(monkeypatch, (0, 2))
    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(SettingsError) as error:
        remote.compute(lambda: None, None, [])
    assert error.value is cause


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (
            WorkerCrashedError(),
            OSError,
            r"^Ray lost a computation \([^\n]+\): start the same command again$",
        ),
        (
            ConnectionError("the channel\n is closed"),
            ConnectionError,
            r"^Ray at head:6379 went away \(the channel is closed\): when Ray is back, the same "
            r"command resumes$",
        ),
    ],
)
def test_a_lost_process_or_ray_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    stand_in: list[dict[str, Any]],
    failure: Exception,
    kind: type[Exception],
    message: str,
) -> None:
    def get(waiting: Any) -> None:
        raise failure

    monkeypatch.setenv(ADDRESS, "head:6379")
    hold(monkeypatch, (0, 2))
    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(kind, match=message):
        remote.compute(lambda: None, None, [])


class Nodes:
    """Nodes of a cluster, each of which reads files by a function of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **looks: Callable[..., Any]) -> None:
        self.looks = looks
        self.asked: list[str] = []
        nodes = [{"NodeID": name, "NodeManagerAddress": f"at {name}"} for name in looks]
        monkeypatch.setattr(remote, "live_nodes", lambda: nodes)
        monkeypatch.setattr(remote, "NodeAffinitySchedulingStrategy", lambda node, soft: node)
        monkeypatch.setattr(ray, "remote", lambda **_: lambda _: self)
        monkeypatch.setattr(ray, "get", lambda waiting: waiting)

    def options(self, scheduling_strategy: str) -> Any:
        self.asked.append(scheduling_strategy)
        return SimpleNamespace(remote=self.looks[scheduling_strategy])


def look(mark: Path, paths: list[Path]) -> list[Any]:
    """What a node that sees the folder answers."""
    return [mark.read_text(), *(path.stat().st_size for path in paths)]


def other_text(mark: Path, paths: list[Path]) -> list[Any]:
    return ["of another folder", *look(mark, paths)[1:]]


def no_mark(mark: Path, paths: list[Path]) -> list[Any]:
    return [None, *look(mark, paths)[1:]]


def other_size(mark: Path, paths: list[Path]) -> list[Any]:
    return [*look(mark, paths)[:-1], 3]


@pytest.mark.parametrize(
    ("second", "unseen"),
    [(look, None), (other_text, ""), (no_mark, ""), (other_size, "b.npy")],
)
def test_a_node_that_does_not_see_the_files_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, second: Callable[..., Any], unseen: str | None
) -> None:
    paths = [tmp_path / "a.parquet", tmp_path / "b.npy"]
    for path in paths:
        path.write_text("text")
    nodes = Nodes(monkeypatch, head=look, second=second, third=look)
    if unseen is None:
        remote.check_visible(tmp_path, paths)
    else:
        with pytest.raises(ValueError, match="cluster") as error:
            remote.check_visible(tmp_path, paths)
        assert str(error.value).startswith(
            f"node at second of the Ray cluster does not see {tmp_path / unseen}: put the project "
        )
    assert nodes.asked == ["head", "second", "third"]
    assert sorted(tmp_path.iterdir()) == paths  # the mark is gone


def test_what_a_node_looks_at(tmp_path: Path) -> None:
    (tmp_path / "mark").write_text("random")
    (tmp_path / "a").write_text("text")
    assert remote._look(tmp_path / "mark", [tmp_path / "a", tmp_path / "b"]) == ["random", 4, None]
    assert remote._look(tmp_path / "none", []) == [None]


def test_the_one_node_of_this_machine_is_not_asked_but_that_of_a_client_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nodes = Nodes(monkeypatch, head=other_text)
    remote.check_visible(tmp_path, [])
    assert nodes.asked == []
    monkeypatch.setenv(ADDRESS, "ray://head:10001")
    with pytest.raises(ValueError, match="node at head of the Ray cluster does not see"):
        remote.check_visible(tmp_path, [])
    assert list(tmp_path.iterdir()) == []
