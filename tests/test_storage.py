"""What nodes share: in a folder, and in an S3 store that fails now and then."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import FAILS, bucket, keys

from pipeline.settings import SettingsError
from pipeline.storage import Storage

FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))"  # no file takes more than 4 bytes


@pytest.fixture(params=["project", "folder", "s3"])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storage]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "s3":
        with keys(), bucket() as url:
            yield Storage(url)
        return
    yield Storage(None if request.param == "project" else str(tmp_path / "shared"))


def test_files_and_folders(storage: Storage) -> None:
    assert storage.read("training", "a", "progress.json") is None
    assert storage.folders("training") == []
    for content in (b"first", b"second"):
        storage.write(content, "training", "a", "progress.json")
        assert storage.read("training", "a", "progress.json") == content
    storage.write(b"", "training", "b", "progress.json")
    assert sorted(storage.folders("training")) == ["a", "b"]
    assert storage.names("training", "a") == ["progress.json"]
    storage.clear("training", "[ac]")
    assert storage.folders("training") == ["b"]
    assert storage.read("training", "a", "progress.json") is None


def test_a_store_that_fails_now_and_then_is_asked_again(storage: Storage) -> None:
    """pyarrow asks again, but not for a file smaller than the store's answer that it is busy."""
    storage.write(b"small", "training", "batches.json")
    for _ in range(FAILS):
        assert storage.read("training", "batches.json") == b"small"


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
from pipeline.storage import Storage
files = pickle.loads(pickle.dumps(Storage({str(tmp_path)!r}).files))  # as Ray's workers have it
with files.open_output_stream({storage.path("state")!r}) as stream:
    stream.write(b"the second")
    {end}
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (ended.returncode == 0) == (left == b"the second"), ended.stderr
    assert storage.read("state") == left


def test_what_is_shared_is_found_by_its_content(storage: Storage, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    folder.mkdir()
    images = bytes(range(256)) * 100_000
    (folder / "images.npy").write_bytes(images)
    (folder / "table").write_bytes(b"first")
    (folder / "other").write_bytes(b"not shared")

    def shared() -> tuple[str, Path]:
        place = storage.shared(folder, ["table", "images.npy"])
        return place, Storage(storage.url).fetched(place)

    place, fetched = shared()
    assert (fetched / "images.npy").read_bytes() == images
    assert (fetched / "table").read_bytes() == b"first"
    assert shared() == (place, fetched)
    if storage.is_projects:
        assert fetched == folder
        return
    assert not (fetched / "other").exists()
    (folder / "table").write_bytes(b"2nd..")
    other, refetched = shared()
    assert other != place
    assert (refetched / "table").read_bytes() == b"2nd.."
    assert (fetched / "table").read_bytes() == b"first"


def test_a_copy_that_was_interrupted_is_made_whole(tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    folder.mkdir()
    (folder / "table").write_bytes(b"whole")
    storage = Storage(str(tmp_path / "shared"))
    copy = Path(storage.shared(folder, ["table"])) / "table"
    copy.write_bytes(b"wh")
    storage.shared(folder, ["table"])
    assert copy.read_bytes() == b"whole"


@pytest.mark.parametrize("url", ["shared/folder", "ftp://host/folder", "s4://bucket"])
def test_what_is_no_storage_is_told(url: str) -> None:
    with pytest.raises(SettingsError, match=f"params.yaml: cluster.storage is '{url}'"):
        Storage(url)


def test_a_store_that_does_not_answer_is_told(tmp_path: Path) -> None:
    (tmp_path / "table").touch()
    url = "s3://reid/tests?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:9"
    with pytest.raises(ConnectionError, match=r"cluster.storage, s3://reid.* cannot be used"):
        Storage(url).shared(tmp_path, ["table"])
