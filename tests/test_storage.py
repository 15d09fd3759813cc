"""What nodes share: in a folder, and in an S3 store that fails now and then."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from servers import FAILS, KEYS, bucket, keys

from pipeline.cluster import storage as shared
from pipeline.cluster.storage import ATTEMPTS, Storage, _read_patiently
from pipeline.config.settings import SettingsError

NOWHERE = "s3://reid/tests?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:9"


@pytest.fixture(params=["project", "folder", pytest.param("s3", marks=pytest.mark.slow)])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storage]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "s3":
        with keys(), bucket() as url:
            # Buckets of one process outlive their server.
            yield Storage(url.replace("/tests", f"/{uuid4().hex}"))
        return
    yield Storage(None if request.param == "project" else str(tmp_path / "shared"))


def test_what_kind_it_is(storage: Storage, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["storage"]
    assert storage.is_local == (kind == "project")
    assert storage.is_folder == (kind != "s3")


def test_files(storage: Storage) -> None:
    assert storage.read("trainings", "a", "progress.json") is None
    assert storage.list_names("trainings", "a") == []
    for content in (b"first", b"second"):
        storage.write(content, "trainings", "a", "progress.json")
        assert storage.read("trainings", "a", "progress.json") == content
    storage.write(b"", "trainings", "a", "id")
    storage.write(b"deeper", "trainings", "a", "checkpoint", "state")
    assert sorted(storage.list_names("trainings", "a")) == ["id", "progress.json"]
    storage.delete("trainings", "a", "id")
    storage.delete("trainings", "a", "id")
    storage.delete("searches", "none", "id")
    assert storage.list_names("trainings", "a") == ["progress.json"]


def test_folders_have_the_time_of_their_newest_file(storage: Storage) -> None:
    assert storage.list_folders("trainings") == {}
    begin = time.time() - 1
    storage.write(b"1", "trainings", "a", "checkpoint", "a", "state")
    storage.write(b"2", "trainings", "b", "progress.json")
    storage.write(b"3", "trainings", "progress.json")  # in no folder
    newest = storage.list_folders("trainings")
    assert newest.keys() == {"a", "b"}
    assert all(begin < seconds < time.time() + 1 for seconds in newest.values())
    time.sleep(1.1)  # a store counts in seconds
    storage.write(b"4", "trainings", "a", "checkpoint", "a", "other")
    later = storage.list_folders("trainings")
    assert later["a"] >= newest["a"] + 1
    assert later["b"] == newest["b"]
    storage.delete_folder("trainings", "a")
    storage.delete_folder("trainings", "a")
    storage.delete_folder("searches")
    assert storage.list_folders("trainings").keys() == {"b"}
    assert storage.read("trainings", "a", "checkpoint", "a", "state") is None
    assert storage.read("trainings", "progress.json") == b"3"


def test_a_file_is_written_only_over_the_given_version(storage: Storage) -> None:
    path = ("leases", "trainings", "a.json")
    assert storage.read_version(*path) is None
    assert not storage.write_if(b"no file has this version", "stale", *path)
    assert storage.read(*path) is None
    assert storage.write_if(b"first", None, *path)
    first = storage.read_version(*path)
    assert first is not None
    assert first.content == b"first"
    assert not storage.write_if(b"as if there were none", None, *path)
    assert storage.read(*path) == b"first"
    assert storage.write_if(b"second", first.version, *path)
    second = storage.read_version(*path)
    assert second is not None
    assert second.content == b"second"
    assert second.version != first.version
    assert not storage.write_if(b"over the first", first.version, *path)
    assert storage.read(*path) == b"second"
    assert storage.list_names("leases", "trainings") == ["a.json"]
    storage.delete(*path)
    assert not storage.write_if(b"over a deleted file", second.version, *path)
    assert storage.write_if(b"third", None, *path)
    assert storage.read(*path) == b"third"


def test_of_several_who_write_at_once_one_does(storage: Storage) -> None:
    version: str | None = None
    for _ in range(3):
        written: list[bytes] = []
        begin = threading.Barrier(4)

        def write(content: bytes, version: str | None, begin: threading.Barrier) -> None:
            writer = Storage(None if storage.is_local else storage.url)
            begin.wait()
            if writer.write_if(content, version, "leases", "a.json"):
                written.append(content)  # noqa: B023

        threads = [
            threading.Thread(target=write, args=(os.urandom(8), version, begin)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        entry = storage.read_version("leases", "a.json")
        assert entry is not None
        assert written == [entry.content]
        version = entry.version


@pytest.mark.parametrize("marker", ["4194400\nfar\n", "4194400\nfar\n17\n", "", "no record"])
def test_the_marker_of_a_writer_that_was_killed_is_deleted_after_its_term(
    marker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On another machine, or before the process wrote its number."""
    monkeypatch.setattr(shared, "MARKER_TERM", 3.0)
    storage = Storage(str(tmp_path))
    storage.write(b"first", "leases", "a.json")
    version = storage.read_version("leases", "a.json")
    assert version is not None
    file = tmp_path / "leases/a.json.lock"
    file.write_text(marker)
    begin = time.monotonic()
    assert storage.write_if(b"second", version.version, "leases", "a.json")
    assert time.monotonic() - begin < 6
    assert storage.read("leases", "a.json") == b"second"
    assert not file.exists()
    if marker != "no record":  # which filelock itself deletes
        assert time.monotonic() - begin >= 3
        text = f"{file} is deleted: a process that was killed left the file"
        assert caplog.messages == [text]


def test_a_marker_that_changes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shared, "MARKER_TERM", 3.0)
    storage = Storage(str(tmp_path))
    file = tmp_path / "leases/a.json.lock"
    file.parent.mkdir()
    file.write_text("4194400\nfar\n")
    present: list[bool] = []

    def write_again() -> None:
        for _ in range(20):
            time.sleep(0.2)
            present.append(file.exists())
            os.utime(file)
        file.unlink()

    writer = threading.Thread(target=write_again)
    writer.start()
    assert storage.write_if(b"second", None, "leases", "a.json")
    writer.join()
    assert present == [True] * 20
    assert caplog.messages == []


def test_a_store_that_fails_now_and_then_is_asked_again(storage: Storage) -> None:
    """pyarrow asks again, but not for a file smaller than the store's answer that it is busy."""
    storage.write(b"small", "trainings", "batches.json")
    for _ in range(FAILS):
        assert storage.read("trainings", "batches.json") == b"small"
        entry = storage.read_version("trainings", "batches.json")
        assert entry is not None
        assert entry.content == b"small"


@pytest.mark.parametrize(
    ("end", "left"),
    [
        ("stream.close()", b"the second"),
        ("stream.flush(); os.kill(os.getpid(), signal.SIGKILL)", b"first"),
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4)); stream.close()", b"first"),  # full
        (
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4)); stream.write(bytes(99_999))",
            b"first",
        ),
    ],
)
def test_a_file_of_a_folder_appears_whole_or_not_at_all(
    tmp_path: Path, end: str, left: bytes
) -> None:
    storage = Storage(str(tmp_path))
    storage.write(b"first", "state")
    script = f"""
import os, pickle, resource, signal
from pipeline.cluster.storage import Storage
files = pickle.loads(pickle.dumps(Storage({str(tmp_path)!r}).files))  # as Ray's workers have it
with files.open_output_stream({storage.path("state")!r}) as stream:
    stream.write(b"the second")
    {end}
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (process.returncode == 0) == (left == b"the second"), process.stderr
    assert storage.read("state") == left


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    script = f"""
import resource
from pipeline.cluster.storage import Storage
resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
try:
    Storage({str(tmp_path)!r}).write(bytes(99_999), "trainings", "a", "id")
except OSError as error:
    print(error)
"""
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert process.stdout == f"[Errno 27] File too large: '{tmp_path}/trainings/a/id'\n"
    assert list((tmp_path / "trainings/a").iterdir()) == []


def test_shared_files_lie_at_a_place_of_their_content(storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    folder.mkdir()
    images = bytes(range(256)) * 100_000
    (folder / "images.npy").write_bytes(images)
    (folder / "table").write_bytes(b"first")
    (folder / "other").write_bytes(b"not shared")

    def share() -> tuple[str, Path]:
        place = storage.publish(folder, ["table", "images.npy"])
        return place, Storage(storage.url).fetch(place)

    place, copy = share()
    assert (copy / "images.npy").read_bytes() == images
    assert (copy / "table").read_bytes() == b"first"
    assert share() == (place, copy)
    if storage.is_local:
        assert copy == folder
        return
    assert not (copy / "other").exists()
    (folder / "table").write_bytes(b"2nd..")
    new_place, new_copy = share()
    assert new_place != place
    assert (new_copy / "table").read_bytes() == b"2nd.."
    assert (copy / "table").read_bytes() == b"first"


def test_a_copy_that_was_interrupted_is_completed(tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    folder.mkdir()
    (folder / "table").write_bytes(b"whole")
    storage = Storage(str(tmp_path / "shared"))
    copy = Path(storage.publish(folder, ["table"])) / "table"
    copy.write_bytes(b"wh")
    storage.publish(folder, ["table"])
    assert copy.read_bytes() == b"whole"


@pytest.mark.parametrize("url", ["shared/folder", "ftp://host/folder", "s4://bucket", "s3://"])
def test_a_text_that_is_no_storage_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=f"params.yaml: cluster.storage is '{url}'"):
        Storage(url)


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_named_without_its_keys(tmp_path: Path) -> None:
    (tmp_path / "table").touch()
    storage = Storage(NOWHERE.replace("s3://", "s3://user:pass%2Fword@"))
    message = r"^params\.yaml: cluster\.storage, s3://reid/tests\?.* cannot be used: "
    with pytest.raises(ConnectionError, match=message) as error:
        storage.publish(tmp_path, ["table"])
    assert "pass" not in str(error.value)


@pytest.mark.parametrize(
    "use",
    [
        lambda storage: storage.read_version("leases", "a.json"),
        lambda storage: storage.write_if(b"", None, "leases", "a.json"),
    ],
)
@pytest.mark.parametrize("with_keys", [True, False])
def test_a_lease_of_a_store_that_does_not_answer_raises_an_error_of_the_system(
    use: Callable[[Storage], object],
    with_keys: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The errors of boto3, of connections and of keys, are of neither kind that callers know."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    if with_keys:
        for name, value in KEYS.items():
            monkeypatch.setenv(name, value)
    with pytest.raises(OSError, match=r"^s3://reid/tests\?region=us-east-1.*: "):
        use(Storage(NOWHERE))


@pytest.mark.slow
def test_keys_in_the_url_open_the_store_and_appear_in_no_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    options: dict[str, Any] = {}
    create = boto3.session.Session.client

    def client(self: boto3.session.Session, service: Any, **changes: Any) -> Any:
        options.update(changes)
        return create(self, service, **changes)

    with bucket() as url:
        monkeypatch.setattr(boto3.session.Session, "client", client)
        storage = Storage(
            url.replace("s3://reid/tests", f"s3://user:pass%2Fword@reid/{uuid4().hex}")
        )
        assert storage.write_if(b"content", None, "leases", "a.json")
        assert storage.read("leases", "a.json") == b"content"
    assert (options["aws_access_key_id"], options["aws_secret_access_key"]) == ("user", "pass/word")
    storage = Storage(NOWHERE.replace("s3://", "s3://user:pass%2Fword@"))
    with pytest.raises(OSError, match="s3://reid/tests") as error:
        storage.read_version("a")
    assert not {word for word in ("user", "pass") if word in str(error.value)}


def test_a_file_that_must_not_be_read_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy store is asked again, and one that refuses is not."""
    calls: list[type[OSError]] = []
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def fail(error: type[OSError]) -> bytes:
        calls.append(error)
        raise error

    for error, number in ((PermissionError, 1), (OSError, ATTEMPTS)):
        calls.clear()
        with pytest.raises(error):
            _read_patiently(lambda error=error: fail(error))  # type: ignore[misc]
        assert len(calls) == number
