"""Servers on this machine for tests: an S3 store that fails now and then, PostgreSQL, MLflow."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
import yaml
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from project import ROOT, wait_for
from werkzeug.serving import WSGIRequestHandler, make_server

PASSWORD = "password of the tests"  # of the account admin
ACCOUNT = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests"}
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
FAILS = 20  # every so many-th request
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Quiet(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        pass


def failing(application: Application) -> Application:
    numbers = itertools.count(1)

    def called(environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        if next(numbers) % FAILS:
            return application(environment, start)
        environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        start("503 Slow Down", [("Content-Type", "application/xml")])
        return [SLOW_DOWN]

    return called


@contextmanager
def keys() -> Iterator[None]:
    """Of the store, for this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield


@contextmanager
def bucket() -> Iterator[str]:
    """A URL of an S3 folder for `cluster.storage`, of a store that answers every twentieth request
    with 503, to who has its `keys`.
    """
    application = failing(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = Thread(target=server.serve_forever)
    thread.start()
    where = f"127.0.0.1:{server.port}"
    try:
        store = boto3.client("s3", endpoint_url=f"http://{where}", region_name="us-east-1")
        store.create_bucket(Bucket="reid")
        store.close()
        yield f"s3://reid/tests?region=us-east-1&scheme=http&endpoint_override={where}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def endpoint(url: str) -> str:
    """The address of the store of a `bucket`, as boto3 takes it."""
    return f"http://{url.partition('endpoint_override=')[2]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a database for MLflow. Skips where PostgreSQL is not installed."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("PostgreSQL's initdb and postgres are not on the PATH")
    # As root PostgreSQL refuses to run.
    as_user: dict[str, Any] = {"user": "nobody", "extra_groups": []} if os.getuid() == 0 else {}
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        if as_user:
            shutil.chown(data, "nobody")
        words = ["initdb", "--pgdata", data, "--username", "mlflow", "--auth", "trust", "--no-sync"]
        subprocess.run(words, check=True, cwd="/", stdout=subprocess.DEVNULL, **as_user)
        server = subprocess.Popen(
            ["postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", data, "-F"],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **as_user,
        )
        try:
            wait_for(lambda: answers(port), "PostgreSQL", 60)
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGQUIT)
            server.wait()


class MLflow:
    """`mlflow server` on a database, which can be killed and started again."""

    def __init__(self, words: Sequence[str], **environment: str) -> None:
        self.words, self.port, self.environment = words, free_port(), environment
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns before it answers."""
        self.process = subprocess.Popen(
            [
                *("mlflow", "server", *self.words),
                *("--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"),
            ],
            env={
                **os.environ,
                **self.environment,
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def mlflow_server(database: str, artifacts: Path) -> Iterator[MLflow]:
    """A server that answers, with a folder for artifacts."""
    words = ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)]
    with _run_server(MLflow(words)) as server:
        yield server


@contextmanager
def mlflow_with_accounts(database: str, artifacts: str, store: str) -> Iterator[MLflow]:
    """The server of deploy/compose.yaml, which answers to who has an account.

    Args:
        database, artifacts: URLs, in place of those of compose.yaml.
        store: the address of the store that has the artifacts.
    """
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    program, command, *words = shlex.split(compose["services"]["mlflow"]["command"])
    assert (program, command) == ("mlflow", "server")
    options = dict(zip(words[::2], words[1::2], strict=True))
    options |= {"--backend-store-uri": database, "--artifacts-destination": artifacts}
    accounts = compose["configs"]["auth"]["content"]
    accounts = re.sub("(?m)(?<=^database_uri = ).*", database, accounts)
    secrets = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "tests"}
    assert secrets.keys() <= compose["services"]["mlflow"]["environment"].keys()
    with tempfile.NamedTemporaryFile("w", suffix=".ini") as file:
        file.write(accounts)
        file.flush()
        server = MLflow(
            [*itertools.chain.from_iterable(options.items())],
            MLFLOW_AUTH_CONFIG_PATH=file.name,
            MLFLOW_S3_ENDPOINT_URL=store,
            **secrets,
        )
        with _run_server(server):
            yield server


@contextmanager
def _run_server(server: MLflow) -> Iterator[MLflow]:
    server.start()
    try:
        wait_for(lambda: answers(server.port), "MLflow's server", 90)
        yield server
    finally:
        server.kill()
