"""A small Market-1501 of noise, and a copy of the project with a tiny data set."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from PIL import Image

from pipeline.cluster.address import ADDRESS, LOCAL_RAY
from pipeline.cluster.environment import SETTINGS

if TYPE_CHECKING:
    import mlflow
    from mlflow.entities import Metric
    from mlflow_runs import Sent
    from playwright.sync_api import Browser
    from project import Project
    from tiny_models import Outcome

NAMES = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c2s1_000476_01.jpg.jpg",
                           "0007_c3s3_077419_03.jpg"],
    "query": ["0003_c1s1_000776_00.jpg"],
    "bounding_box_test": ["-1_c1s1_000401_03.jpg", "0000_c1s1_000151_01.jpg",
                          "0003_c4s6_015641_02.jpg", "0003_c1s1_000801_01.jpg"],
}  # fmt: skip


LONG = (
    *("test_pipeline.py", "test_trainings.py", "test_nodes.py", "test_search.py"),
    "test_failures.py",
)
# The longest first, so that two or three processes end together. Real processes wait often: a file
# that only computes is among the first three.
ORDER = (
    *("test_nodes.py", "test_pipeline.py", "test_site.py", "test_failures.py", "test_trainings.py"),
    *("test_search.py", "test_glue_project.py", "test_export.py", "test_use.py"),
    *("test_page_in_browser.py", "test_cluster.py", "test_training.py", "test_storage.py"),
    "test_cli.py",
)
EXPECTED_SKIPS = "IANET_EXPECTED_SKIPS"  # variable: words of the reasons that are expected

# A process that nohup or `&` of a script starts ignores Ctrl-C, as would those of the tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray reads some of these when it is imported.
os.environ.update(SETTINGS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files and mark tests by them."""
    order = {name: place for place, name in enumerate(ORDER)}
    items.sort(key=lambda item: order.get(item.path.name, len(ORDER)))
    for item in items:
        if item.path.name in LONG:
            item.add_marker("slow")
        if item.path.name == "test_gpu.py":
            item.add_marker("gpu")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skip that is not expected fails the session, where the expected ones are named."""
    if EXPECTED_SKIPS not in os.environ or hasattr(session.config, "workerinput"):
        return
    words = [word for word in os.environ[EXPECTED_SKIPS].split(",") if word]  # "" is in all
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    for report in reporter.stats.get("skipped", []) if reporter else []:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(word in reason for word in words):
            reporter.write_line(f"unexpected skip: {report.nodeid}: {reason}", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Commands set variables of Ray and MLflow, which no later test is to see."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose data is prepared, made once for all processes of pytest. Not to be changed:
    tests take a copy.
    """
    return _once(
        tmp_path_factory, "prepared", lambda project: project.repro("pack@synthetic.64x32")
    )


@pytest.fixture
def untrained(prepared: Project, tmp_path: Path) -> Iterator[Project]:
    """A copy with prepared data, in which nothing was trained; no process may be left behind."""
    project = prepared.copy(tmp_path / "untrained")
    yield project
    assert project.killed() == [], "processes were left behind"


def _once(
    factory: pytest.TempPathFactory, name: str, finish: Callable[[Project], object]
) -> Project:
    from project import Project  # torch and MLflow, which fast tests need not import

    base = factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = root / name, root / f"{name}.done"
    with FileLock(root / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            finish(Project.create(folder))
            done.touch()
    return Project(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for the tests of a file."""
    from browser import start_browser  # Playwright, which fast tests need not import

    with start_browser() as browser:
        yield browser


def noise(seed: int, height: int = 128, width: int = 64) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=95)
    return jpeg.getvalue()


@pytest.fixture(params=["folder", "zip", "tar", "tar.gz"])
def market(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The published layout with eight images, as a folder and as archives."""
    root = tmp_path / "Market-1501-v15.09.15"
    for folder, names in NAMES.items():
        (root / folder).mkdir(parents=True)
        for seed, name in enumerate(names):
            (root / folder / name).write_bytes(noise(seed))
        (root / folder / "Thumbs.db").write_bytes(b"lies in the published folders")
    if request.param == "folder":
        return root
    return archive_folder(root, request.param)


def archive_folder(root: Path, kind: str) -> Path:
    """A folder as zip, tar, tar.gz and so on beside it, with the folder's name in it."""
    target = root.with_name(f"{root.name}.{kind}")
    if kind != "zip":
        with tarfile.open(target, f"w:{kind[4:]}") as tar:
            tar.add(root, root.name)
        return target
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*")):
            archive.write(path, path.relative_to(root.parent))
    return target


@pytest.fixture
def rewritten() -> Callable[[Path, str, str], None]:
    """Replace a text that must occur in a file."""

    def rewrite(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text, f"{path} does not hold {old!r}"
        path.write_text(text.replace(old, new))

    return rewrite


def written(root: Path, names: list[str]) -> Path:
    """Small images of noise under these names."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(noise(seed, 16, 8))
    return root


def rows(table: pd.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return list(table[list(columns)].itertuples(index=False, name=None))


# MLflow


@pytest.fixture
def tracked_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a project with a database for MLflow, to which this process is connected."""
    import mlflow
    from project import empty_database

    from pipeline.tracking import server

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    (tmp_path / "mlflow.db").write_bytes(empty_database())
    for name in ("ianet", "pipeline"):
        (tmp_path / name).symlink_to(Path(__file__).parents[1] / name)
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    # MLflow keeps what it knows of a database by its address.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    server.connect()
    yield tmp_path
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def sent(tracked_project: Path, monkeypatch: pytest.MonkeyPatch) -> Sent:
    """The metrics of each request, as steps and names."""
    import mlflow

    requests: Sent = []
    log_batch = mlflow.MlflowClient.log_batch

    def send(
        self: mlflow.MlflowClient, run_id: str, metrics: Sequence[Metric] = (), **rest: Any
    ) -> Any:
        if metrics:
            requests.append([(metric.step, metric.key) for metric in metrics])
        return log_batch(self, run_id, metrics=metrics, **rest)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", send)
    return requests


# Sources


@pytest.fixture
def make_pipe() -> Iterator[Callable[[Path], None]]:
    """Make a named pipe. Who opens it waits for ever, so the test fails after two minutes."""

    def fail(*_: Any) -> None:
        pytest.fail("what a named pipe holds is waited for")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(120)
    yield os.mkfifo
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """The command `ianet` in this process."""
    from tiny_models import runner  # torch, which most files need not import

    return runner(monkeypatch, capsys)


@pytest.fixture
def unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No Ray is named, and what a test names is forgotten."""
    for name in (ADDRESS, LOCAL_RAY):
        monkeypatch.setenv(name, "set, so that the value of before comes back")
        monkeypatch.delenv(name)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each start of Ray, which does not happen."""
    import ray  # after the variables above are set

    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    return calls


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Ray that calls at once, in this process; the options of each call."""
    import ray  # after the variables above are set

    calls: list[dict[str, Any]] = []

    def declare(**options: Any) -> Callable[..., Any]:
        def task(function: Callable[..., Any]) -> Any:
            def submit(*arguments: Any) -> Any:
                calls.append(options)
                return lambda: function(*arguments)

            return SimpleNamespace(remote=submit)

        return task

    monkeypatch.setattr(ray, "remote", declare)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", lambda waiting: waiting())
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    return calls
