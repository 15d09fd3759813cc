"""What Ray gives to trainings, asked of a stand-in that holds so much."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import psutil
import pytest
from ray.exceptions import WorkerCrashedError
from ray.train import ScalingConfig, UserCallback
from ray.train.torch import TorchConfig
from ray.util import state

from pipeline import cluster, driver
from pipeline.address import OURS
from pipeline.process_group import ProcessGroup
from pipeline.storage import Storage


def holding(monkeypatch: pytest.MonkeyPatch, *nodes: tuple[int, int]) -> None:
    """Each with so many GPUs and cores."""
    held = [
        {
            "Alive": True,
            "Resources": {"CPU": float(cores), **({"GPU": float(gpus)} if gpus else {})},
        }
        for gpus, cores in nodes
    ]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: held)


@pytest.mark.parametrize(
    ("workers", "gpus", "cores", "alone", "number", "threads"),
    [
        ("auto", 0, 4, True, 1, 4),  # all that there is
        (2, 0, 5, True, 2, 2),
        ("auto", 2, 16, True, 2, 8),
        ("auto", 0, 4, False, 1, 1),  # its part
        (2, 0, 4, False, 2, 1),
        ("auto", 8, 64, False, 1, 8),
        (4, 8, 64, False, 4, 8),
    ],
)
def test_a_training_alone_has_all_and_one_of_several_its_part(
    monkeypatch: pytest.MonkeyPatch,
    workers: int | str,
    gpus: int,
    cores: int,
    alone: bool,
    number: int,
    threads: int,
) -> None:
    holding(monkeypatch, (gpus, cores))
    config, own = cluster.scaling(workers, alone=alone)
    assert config.num_workers == number
    assert own == threads
    assert config.use_gpu == (gpus > 0)
    expected = {"CPU": threads, **({"GPU": 1} if gpus else {})}
    assert config.resources_per_worker == expected


@pytest.mark.parametrize(
    ("workers", "gpus", "cores", "expected"),
    [("auto", 0, 2, 2), (2, 0, 5, 2), (4, 0, 2, 1), ("auto", 8, 64, 8), (4, 8, 64, 2)],
)
def test_trainings_at_a_time(
    monkeypatch: pytest.MonkeyPatch, workers: int | str, gpus: int, cores: int, expected: int
) -> None:
    holding(monkeypatch, (gpus, cores))
    assert cluster.trainings(workers) == expected


@pytest.mark.parametrize(
    ("named", "losses"),
    [
        ({}, 3),
        ({"RAY_ADDRESS": "head:6379"}, 10),  # where nodes come and go
        ({"RAY_ADDRESS": "127.0.0.1:6379", OURS: "1"}, 3),
    ],
)
def test_a_training_on_a_cluster_outlives_more_losses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: dict[str, str], losses: int
) -> None:
    for name in ("RAY_ADDRESS", OURS):
        monkeypatch.delenv(name, raising=False)
    for name, value in named.items():
        monkeypatch.setenv(name, value)
    made = driver.trainer({}, "run", ScalingConfig(), Storage(str(tmp_path)), driver.failures())
    assert made.run_config.failure_config.max_failures == losses


# Ray Data copies its own settings, the deprecated ones, too.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
def test_a_training_has_no_actors_for_what_it_does_not_use(tmp_path: Path) -> None:
    def started(**options: Any) -> set[str]:
        place = (ScalingConfig(), Storage(str(tmp_path)), 0)
        made = driver.trainer({}, "run", *place, **options)._create_default_callbacks()
        return {type(one).__name__ for one in made}

    alone = started()
    assert "BackendSetupCallback" in alone
    assert not {"DatasetsCallback", "PlacementGroupCleanerCallback"} & alone
    # Of a trial that Ray Tune stops, the search needs the cores.
    assert "PlacementGroupCleanerCallback" in started(callbacks=[UserCallback()])


@pytest.mark.parametrize(
    ("nodes", "workers", "alone", "number", "threads"),
    [
        ([(0, 112), (8, 16)], "auto", True, 8, 2),  # the cores of a head are not for GPUs
        ([(0, 112), (8, 16)], 4, True, 4, 4),
        ([(4, 64), (4, 16)], "auto", True, 8, 4),
        ([(4, 64), (4, 16)], 4, True, 4, 16),  # all on the first
        ([(4, 64), (4, 16)], "auto", False, 1, 4),
        ([(0, 5), (0, 3)], 2, True, 2, 3),
        ([(0, 5), (0, 3)], 3, True, 3, 2),
    ],
)
def test_workers_find_room_on_the_nodes(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[tuple[int, int]],
    workers: int | str,
    alone: bool,
    number: int,
    threads: int,
) -> None:
    holding(monkeypatch, *nodes)
    config, own = cluster.scaling(workers, alone=alone)
    assert (config.num_workers, own) == (number, threads)


def test_more_workers_than_ray_holds_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    holding(monkeypatch, (0, 2))
    with pytest.raises(ValueError, match="workers is 3, but Ray holds 0 GPUs and 2 CPU cores"):
        cluster.scaling(3, alone=True)
    holding(monkeypatch, (0, 0))
    with pytest.raises(ValueError, match="Ray holds 0 GPUs and 0 CPU cores, no place for a worker"):
        cluster.scaling("auto", alone=True)


def test_too_little_memory_for_the_driver_of_a_trial_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = {"Alive": True, "NodeID": "own", "Resources": {"memory": 1.2e9}}
    other = {"Alive": True, "NodeID": "other", "Resources": {"memory": 9e9}}
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [other, node])
    monkeypatch.setattr(cluster, "own_node", lambda: {"ray.io/node-id": "own"})
    assert cluster.drivers(500e6) == 2
    node["Resources"] = {"memory": 0.4e9}
    with pytest.raises(ValueError, match="Ray holds 400 MB of memory on the node of the search"):
        cluster.drivers(500e6)


def test_an_address_at_which_nothing_answers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv(cluster.ADDRESS, address)
    with (
        pytest.raises(ConnectionError, match=f"no Ray answers at {address} .*name none"),
        cluster.starting() as ready,
    ):
        ready()


@pytest.mark.parametrize(
    ("address", "ours", "told", "sent"),
    [(None, None, "local", False), ("auto", None, None, True), ("auto", "1", None, False)],
)
def test_a_ray_that_is_not_named_is_not_joined_and_a_cluster_gets_the_code(
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    ours: str | None,
    told: str | None,
    sent: bool,
) -> None:
    """`ray.init` by itself would join what `ray start` started on this machine."""
    for name, value in ((cluster.ADDRESS, address), (cluster.OURS, ours)):
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, value)
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(cluster.ray, "init", lambda **options: started.append(options))
    with cluster.starting() as ready:
        ready()
    [options] = started
    assert options["address"] == told
    assert ("runtime_env" in options) == sent


def test_rays_processes_are_told_where_the_dashboard_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a second Ray they would not find it, and would free nothing of a stopped trial."""
    monkeypatch.delenv(cluster.ADDRESS, raising=False)
    monkeypatch.setenv(cluster.API, "put back after the test")
    started: list[dict[str, Any]] = []
    monkeypatch.setattr(cluster.ray, "init", lambda **options: started.append(options))
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True}])
    with cluster.starting(dashboard=True) as ready:
        ready()
    [options] = started
    assert options["include_dashboard"] is True
    assert os.environ[cluster.API] == f"http://127.0.0.1:{options['dashboard_port']}"


@pytest.fixture
def own_ray() -> Iterator[None]:
    with cluster.starting() as ready:
        ready()
        yield


def test_what_another_command_is_at_is_waited_for_and_then_refused(
    own_ray: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def claim(name: str, patience: float = 0) -> None:
        cluster.claim(name, f"training {name}", lambda: None, patience)

    monkeypatch.setattr(cluster, "_claims", [])
    claim("a")
    claim("a")  # on its own Ray there is no other command
    monkeypatch.setenv(cluster.ADDRESS, "auto")
    claim("a")
    claim("b")
    with pytest.raises(ValueError, match="another command is training a, on this cluster"):
        claim("a")
    assert "another command is training a, or was killed: waiting" in capfd.readouterr().err
    cluster._claims.clear()  # that command has ended
    claim("a", patience=10)


def test_what_a_call_outside_tells_is_taken_in_order(
    own_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "is_client", lambda: True)

    def call(tell: Callable[[int], None]) -> str:
        for number in range(5):
            tell(number)
        return "done"

    taken: list[int] = []
    assert cluster.followed(call, taken.append) == "done"
    assert taken == list(range(5))


def test_a_mistake_on_either_side_of_such_a_call_ends_it(
    own_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "is_client", lambda: True)

    def endless(tell: Callable[[int], None]) -> None:
        while True:
            tell(0)

    def fails(tell: Callable[[int], None]) -> None:
        raise ValueError("there is no room")

    def take(number: int) -> None:
        raise OSError("the store is gone")

    with pytest.raises(OSError, match=r"^the store is gone$"):
        cluster.followed(endless, take)
    with pytest.raises(ValueError, match=r"^there is no room$"):
        cluster.followed(fails, take)


def test_a_process_that_ray_lost_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(waiting: Any) -> None:
        raise WorkerCrashedError

    monkeypatch.setattr(
        cluster.ray, "remote", lambda **_: lambda call: SimpleNamespace(remote=call)
    )
    monkeypatch.setattr(cluster.ray, "put", lambda call: call)
    monkeypatch.setattr(cluster.ray, "get", get)
    with pytest.raises(OSError, match=r"^Ray lost what it computed \(.*\): start the same command"):
        cluster._remotely(lambda: None)


def test_cores_without_a_living_worker_are_freed_at_the_second_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Listed(NamedTuple):
        placement_group_id: str
        bundles: Any = ()

    cores, driver = [{"unit_resources": {"CPU": 1.0}}], [{"unit_resources": {"memory": 5e8}}]
    working, left, of_tune = "0a" * 18, "0b" * 18, "0c" * 18
    held = [Listed(working, cores), Listed(left, cores), Listed(of_tune, driver)]
    monkeypatch.setattr(state, "list_placement_groups", lambda **_: held)
    monkeypatch.setattr(state, "list_actors", lambda **_: [Listed(working)])
    removed = []
    # By its module: `ray.util` has a function of the same name.
    module = sys.modules["ray.util.placement_group"]
    monkeypatch.setattr(
        module, "remove_placement_group", lambda group: removed.append(group.id.hex())
    )

    class Context:
        def get_job_id(self) -> str:
            return "01000000"

    monkeypatch.setattr(cluster.ray, "get_runtime_context", Context)
    seen = cluster.free_orphans(set())
    assert (seen, removed) == ({left}, [])
    assert cluster.free_orphans(seen) == set()
    assert removed == [left]

    # Once that is gone the one that works ends by itself, and all is free.
    held.remove(held[1])
    asked: list[None] = []

    def actors(**_: Any) -> list[Listed]:
        asked.append(None)
        held[:] = held if len(asked) < 4 else held[-1:]
        return [Listed(working)]

    monkeypatch.setattr(state, "list_actors", actors)
    monkeypatch.setattr(cluster.time, "sleep", lambda seconds: None)
    cluster.free_all()
    assert len(asked) >= 4
    assert removed == [left]


def test_sigterm_ends_a_shared_ray_as_ctrl_c_does() -> None:
    program = (
        "import time\nfrom pipeline import cluster\nfrom pipeline.shell import stage\n"
        "with stage(), cluster.shared():\n    print('up', flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    started = psutil.Process(process.pid).children(recursive=True)
    assert started
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == "stopped; the same command goes on from here\n"
    _, left = psutil.wait_procs(started, timeout=20)
    assert left == []


def test_rays_controller_gets_the_workers_function_and_group_without_their_imports() -> None:
    code = (
        "import sys; from pipeline import process_group, worker;"
        "print({'torch', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class Workers:
    """Of a training, without Ray."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.joining: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        return self.number

    def get_resources_per_worker(self) -> dict[str, float]:
        return {"CPU": 1}

    def execute(self, call: Callable[..., Any], **options: Any) -> None:
        """What each is told of all."""

    def execute_single(self, rank: int, call: Callable[..., Any]) -> tuple[str, int]:
        return "127.0.0.1", 29500

    def execute_single_async(self, rank: int, call: Callable[..., Any], **options: Any) -> None:
        self.joining.append((options["world_rank"], options["world_size"], options["backend"]))


@pytest.mark.parametrize(("number", "joining"), [(1, []), (2, [(0, 2, "gloo"), (1, 2, "gloo")])])
def test_several_workers_form_torchs_process_group_and_one_none(
    monkeypatch: pytest.MonkeyPatch, number: int, joining: list[tuple[int, int, str]]
) -> None:
    monkeypatch.setattr("ray.get", lambda waiting: waiting)
    workers: Any = Workers(number)
    ProcessGroup().backend_cls().on_start(workers, ProcessGroup())
    assert workers.joining == joining
    # Each takes the GPU that is its own.
    assert ProcessGroup().train_func_context == TorchConfig().train_func_context
