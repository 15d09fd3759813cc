"""Ray's start and end, and what it gives to trainings."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import ray
from project import wait_for
from stand_ins import hold

from pipeline.cluster import address, environment, resources, session
from pipeline.cluster.address import ADDRESS, LOCAL_RAY
from pipeline.cluster.resources import Share
from pipeline.cluster.storage import STORAGE, Storage
from pipeline.config.settings import SettingsError, load
from pipeline.training import workers as training_workers

ROOT = Path(__file__).parents[1]
NICENESS = "RAY_worker_niceness"
pytestmark = pytest.mark.usefixtures("unnamed")


# Shares.


@pytest.mark.parametrize(
    ("workers", "gpus", "cores", "alone", "expected"),
    [
        ("auto", 0, 4, True, Share(1, 4, 0)),  # all that there is
        (2, 0, 5, True, Share(2, 2, 0)),
        ("auto", 2, 16, True, Share(1, 16, 1)),
        ("auto", 0, 4, False, Share(1, 1, 0)),  # its part
        (2, 0, 4, False, Share(2, 1, 0)),
        ("auto", 8, 64, False, Share(1, 8, 1)),
        (4, 8, 64, False, Share(4, 8, 1)),
    ],
)
def test_a_training_alone_has_all_and_one_of_several_its_part(
    monkeypatch: pytest.MonkeyPatch,
    workers: int | str,
    gpus: int,
    cores: int,
    alone: bool,
    expected: Share,
) -> None:
    hold(monkeypatch, (gpus, cores))
    assert resources.share(workers, alone=alone) == expected


@pytest.mark.parametrize(
    ("nodes", "workers", "alone", "expected"),
    [
        ([(0, 112), (8, 16)], 8, True, Share(8, 2, 1)),  # a head's cores are not for GPUs
        ([(0, 112), (8, 16)], 4, True, Share(4, 4, 1)),
        ([(4, 64), (4, 16)], 8, True, Share(8, 4, 1)),
        ([(4, 64), (4, 16)], "auto", True, Share(1, 64, 1)),
        ([(4, 64), (4, 16)], 4, True, Share(4, 16, 1)),  # all on the first
        ([(4, 64), (4, 16)], "auto", False, Share(1, 4, 1)),
        ([(0, 5), (0, 3)], 2, True, Share(2, 3, 0)),
        ([(0, 5), (0, 3)], 3, True, Share(3, 2, 0)),
    ],
)
def test_workers_find_room_on_the_nodes(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[tuple[int, int]],
    workers: int | str,
    alone: bool,
    expected: Share,
) -> None:
    hold(monkeypatch, *nodes)
    assert resources.share(workers, alone=alone) == expected


def test_more_workers_than_ray_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hold(monkeypatch, (0, 2))
    with pytest.raises(ValueError, match="workers is 3, but Ray holds 0 GPUs and 2 CPU cores: set"):
        resources.share(3, alone=True)
    hold(monkeypatch, (0, 0))
    with pytest.raises(ValueError, match="Ray holds 0 GPUs and 0 CPU cores, no place for a worker"):
        resources.share("auto", alone=True)


@pytest.mark.parametrize(
    ("workers", "gpus", "cores", "expected"),
    [("auto", 0, 2, 2), (2, 0, 5, 2), (4, 0, 2, 1), ("auto", 8, 64, 8), (4, 8, 64, 2)],
)
def test_trainings_at_a_time(
    monkeypatch: pytest.MonkeyPatch, workers: int | str, gpus: int, cores: int, expected: int
) -> None:
    hold(monkeypatch, (gpus, cores))
    assert resources.trainings_at_a_time(workers) == expected


# Which Ray is used.


@pytest.mark.parametrize(
    ("variables", "shared", "cluster", "client", "losses"),
    [
        ({}, False, False, False, 3),
        ({ADDRESS: ""}, False, False, False, 3),
        ({ADDRESS: "127.0.0.1:6379", LOCAL_RAY: "1"}, True, False, False, 3),
        ({ADDRESS: "head:6379"}, True, True, False, 10),  # where nodes come and go
        ({ADDRESS: "ray://head:10001"}, True, True, True, 10),
    ],
)
def test_an_address_says_what_kind_of_ray_it_is(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    shared: bool,
    cluster: bool,
    client: bool,
    losses: int,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (address.is_shared(), address.is_cluster(), address.is_client()) == (
        shared, cluster, client,
    )  # fmt: skip
    assert training_workers.allowed_losses() == losses


@pytest.mark.parametrize(
    ("variable", "expected"),
    [(None, "head:6379"), ("", "head:6379"), ("other:6379", "other:6379")],
)
def test_the_variable_goes_before_params_yaml(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, expected: str
) -> None:
    monkeypatch.setattr(os, "environ", {} if variable is None else {ADDRESS: variable})
    settings = load()
    cluster = settings.cluster.model_copy(update={"address": "head:6379"})
    environment.prepare(settings.model_copy(update={"cluster": cluster}))
    assert os.environ[ADDRESS] == expected
    assert os.environ[NICENESS] == "0"
    assert not environment.PRIVATE.keys() & os.environ.keys()


@pytest.mark.parametrize("mode", ["disabled", "Disabled", "none", "k8s", " token", "1"])
def test_a_ray_without_a_token_is_refused_here_and_told_of_a_cluster(
    mode: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "environ", {"RAY_AUTH_MODE": mode})
    with pytest.raises(SettingsError) as refusal:
        environment.prepare(load())
    assert str(refusal.value) == (
        f"RAY_AUTH_MODE is {mode}, not token, so anybody on this machine could run code by Ray: "
        "unset the variable"
    )
    assert os.environ == {"RAY_AUTH_MODE": mode}
    monkeypatch.setattr(os, "environ", {"RAY_AUTH_MODE": mode, ADDRESS: "head:6379"})
    environment.prepare(load())
    assert caplog.messages == [
        f"RAY_AUTH_MODE is {mode}: whoever reaches the cluster's ports runs code on it; only token "
        "asks for a token"
    ]
    assert os.environ["RAY_AUTH_MODE"] == mode


@pytest.mark.parametrize("mode", [None, "", "token", "Token"])
def test_a_token_is_asked_for_by_a_ray_of_this_machine_and_wherever_the_mode_says_so(
    mode: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    given = {} if mode is None else {"RAY_AUTH_MODE": mode}
    monkeypatch.setattr(os, "environ", {**given})
    environment.prepare(load())
    assert os.environ["RAY_AUTH_MODE"] == (mode or "token")
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    # Of a cluster Ray itself finds out whether this machine has a token, unless the mode is set.
    monkeypatch.setattr(os, "environ", {**given, ADDRESS: "head:6379"})
    environment.prepare(load())
    assert os.environ.get("RAY_AUTH_MODE") == (mode or None)
    assert caplog.messages == []


@pytest.mark.parametrize("mode", ["Token", "none", "k8s", ""])
def test_ray_takes_all_modes_but_token_for_disabled(mode: str) -> None:
    code = (
        "from ray._private.authentication.authentication_utils import is_token_auth_enabled as ask"
        "; print(ask())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RAY_AUTH_MODE": mode},
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == f"{mode.lower() == 'token'}\n"


@pytest.mark.parametrize("named", [None, ""])
def test_an_empty_address_names_no_ray(monkeypatch: pytest.MonkeyPatch, named: str | None) -> None:
    monkeypatch.setattr(os, "environ", {ADDRESS: ""})
    settings = load()
    cluster = settings.cluster.model_copy(update={"address": named, "storage": ""})
    environment.prepare(settings.model_copy(update={"cluster": cluster}))
    assert ADDRESS not in os.environ
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert Storage("").is_local


def test_a_variable_names_the_storage_where_params_yaml_names_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(STORAGE, str(tmp_path / "of-the-variable"))
    assert Storage(None).path("a") == str(tmp_path / "of-the-variable/a")
    assert not Storage(None).is_local
    assert Storage(str(tmp_path)).path("a") == str(tmp_path / "a")
    monkeypatch.setenv(STORAGE, "folder")
    with pytest.raises(SettingsError, match=r"^IANET_STORAGE is 'folder': "):
        Storage(None)
    monkeypatch.setenv(STORAGE, "")
    assert Storage(None).is_local


def test_a_ray_of_this_machine_has_a_token_and_a_variable_of_the_user_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {NICENESS: "5", "NCCL_SOCKET_IFNAME": "eth1"})
    environment.prepare(load())
    assert ADDRESS not in os.environ
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    assert os.environ["NCCL_SOCKET_IFNAME"] == "eth1"
    assert os.environ[NICENESS] == "5"


# Sessions.


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nothing_answers_is_refused(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]], scheme: str
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"{scheme}127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv(ADDRESS, place)
    message = rf"^no Ray answers at {place} \(.*\): start it .*, or name none \(RAY_ADDRESS"
    with pytest.raises(ConnectionError, match=message), session.session() as ready:
        ready()
    assert starts == []


def test_a_ray_of_the_command_is_joined_to_no_other(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]]
) -> None:
    """`ray.init` by itself would join what `ray start` started on this machine."""
    monkeypatch.setattr(session, "cores", lambda: 3)
    with session.session() as ready:
        ready()
    [options] = starts
    assert options["address"] == "local"
    assert options["num_cpus"] == 3
    assert options["include_dashboard"] is False
    assert "runtime_env" not in options


def test_a_ray_of_this_machine_prepares_a_process(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]], stand_in: list[dict[str, Any]]
) -> None:
    def prepare() -> None: ...

    with session.session(prepare) as ready:
        ready()
    assert stand_in == [{"num_cpus": 0}]
    monkeypatch.setenv(ADDRESS, "auto")  # a cluster may have no place yet
    with session.session(prepare) as ready:
        ready()
    assert len(starts) == 2
    assert stand_in == [{"num_cpus": 0}]


def test_a_cluster_gets_the_code(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv(ADDRESS, "auto")
    with session.session() as ready:
        ready()
    [options] = starts
    assert not {"address", "num_cpus"} & options.keys()  # Ray reads the variable
    assert options["runtime_env"] == {
        "py_modules": [str(ROOT / "pipeline"), str(ROOT / "ianet")],
        "env_vars": environment.SETTINGS,
    }


def test_a_ray_that_another_command_of_this_project_started_has_the_code(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]]
) -> None:
    monkeypatch.setenv(ADDRESS, "auto")
    monkeypatch.setenv(LOCAL_RAY, "1")
    with session.session() as ready:
        ready()
    [options] = starts
    assert not {"address", "num_cpus", "runtime_env"} & options.keys()


def test_a_ray_that_refuses_this_machine_names_the_token(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]]
) -> None:
    def refuse(**options: Any) -> None:
        raise ConnectionError("no token")

    monkeypatch.setenv(ADDRESS, "auto")
    monkeypatch.setattr(ray, "init", refuse)
    message = r"^Ray at auto does not accept this machine \(no token\): .*RAY_AUTH_MODE=token"
    with pytest.raises(ConnectionError, match=message), session.session() as ready:
        ready()


def test_commands_find_a_shared_ray_by_its_address(
    monkeypatch: pytest.MonkeyPatch, starts: list[dict[str, Any]]
) -> None:
    context = SimpleNamespace(gcs_address="127.0.0.1:6000")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    with session.open_shared_session():
        assert os.environ[ADDRESS] == "127.0.0.1:6000"
        assert os.environ[LOCAL_RAY] == "1"
    assert not {ADDRESS, LOCAL_RAY} & os.environ.keys()
    monkeypatch.setenv(ADDRESS, "auto")
    with session.open_shared_session():
        assert os.environ[ADDRESS] == "auto"
        assert LOCAL_RAY not in os.environ
    assert os.environ[ADDRESS] == "auto"


SHARED = """
import os, sys, time
from pathlib import Path
from pipeline.cluster import environment
from pipeline.config.settings import load
from pipeline.shell import command
def compute(arguments):
    import ray.train
    import torch
    total = torch.ones(3)
    torch.distributed.all_reduce(total)
    rank = ray.train.get_context().get_local_rank()
    local = [os.environ.get(name) for name in ('LOCAL_RANK', 'LOCAL_WORLD_SIZE')]
    text = f"{total.tolist()}, {local}"
    Path(arguments['place'].storage, f'worker.{rank}').write_text(text)
    time.sleep(60)
def main():
    environment.prepare(load())
    from pipeline.cluster.resources import Share
    from pipeline.cluster.session import open_shared_session
    from pipeline.training import workers
    from pipeline.training.configuration import Place
    workers.train_together = compute
    with open_shared_session():
        print(os.environ['RAY_ADDRESS'], flush=True)
        place = Place(sys.argv[1], '', Share(2, 1, 0), 5)
        workers.run_several(None, place, 'group')
command(main)
"""


@pytest.mark.slow
def test_a_shared_ray_and_its_workers_listen_on_loopback_alone_and_end_at_sigterm(
    tmp_path: Path,
) -> None:
    variables = {*environment.PRIVATE, *environment.SETTINGS, ADDRESS, LOCAL_RAY, "RAY_AUTH_TOKEN"}
    kept = {name: value for name, value in os.environ.items() if name not in variables}
    process = subprocess.Popen(
        [sys.executable, "-c", SHARED, str(tmp_path)],
        cwd=ROOT,
        env={**kept, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()

    def texts() -> list[str]:
        return [path.read_text() for path in sorted(tmp_path.glob("worker.*"))]

    expected = ["[2.0, 2.0, 2.0], ['0', '2']", "[2.0, 2.0, 2.0], ['1', '2']"]
    wait_for(lambda: texts() == expected, "both workers")
    children = psutil.Process(process.pid).children(recursive=True)
    listeners = {
        (child.name(), ip_address(connection.laddr.ip), connection.laddr.port)
        for child in [psutil.Process(process.pid), *children]
        for connection in child.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=60)
    _, left = psutil.wait_procs(children, timeout=20)
    assert not (tmp_path / ".ray/auth_token").exists()
    for child in left:
        child.kill()
    assert process.returncode == 1
    assert messages == "stopped; the same command resumes from here\n"
    assert left == []
    assert line.startswith("127.0.0.1:")
    # GCS, raylet, driver and the store of two workers at least.
    assert len(listeners) >= 7
    # ::ffff:127.0.0.1 is 127.0.0.1 of a socket that speaks IPv6, too.
    mapped = [(name, getattr(ip, "ipv4_mapped", None) or ip) for name, ip, _ in listeners]
    assert [entry for entry in mapped if not entry[1].is_loopback] == []
    assert int(line.split(":")[1]) in {port for _, _, port in listeners}


def test_a_worker_knows_its_place_among_the_workers_of_its_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of five workers on two nodes: a training divides the memory of a node by this number."""
    from pipeline.training import group  # torch, which the other tests need not import

    context = SimpleNamespace(
        get_world_size=lambda: 5, get_local_rank=lambda: 1, get_local_world_size=lambda: 2
    )
    monkeypatch.setattr(group.ray.train, "get_context", lambda: context)
    group._set_local_variables()
    assert os.environ["LOCAL_RANK"] == "1"
    assert os.environ["LOCAL_WORLD_SIZE"] == "2"


def test_the_store_of_a_group_listens_on_the_address_of_one_node_alone() -> None:
    from pipeline.training import group  # torch, which the other tests need not import

    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        place = probe.getsockname()
    group._join("gloo", place, 0, 1, timedelta(seconds=60))
    try:
        sockets = psutil.Process().net_connections("tcp")
        listeners = [each.laddr for each in sockets if each.status == psutil.CONN_LISTEN]
        assert [each for each in listeners if each.port == place[1]] == [place]
    finally:
        group._leave()


@pytest.mark.parametrize("failures", [1, 2])
def test_a_ray_that_does_not_start_in_time_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    starts: list[int] = []

    def init(**_: Any) -> None:
        starts.append(1)
        if len(starts) <= failures:
            raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(session.ray, "init", init)
    monkeypatch.setattr(session.ray, "shutdown", lambda: None)
    if failures == 1:
        session._init({})
    else:
        with pytest.raises(OSError, match=r"Ray did not start \(The current .*session_latest/logs"):
            session._init({})
    assert len(starts) == 2


# What leads.


@pytest.mark.slow
def test_what_leads_a_training_imports_no_torch() -> None:
    code = (
        "import json, sys; from pipeline.training import launch, worker;"
        "print(json.dumps(sorted({'torch', 'torchvision'} & set(sys.modules))))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(process.stdout) == []
