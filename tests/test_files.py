"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
from pathlib import Path

import pytest
from PIL import Image

from ianet.files import build_whole, check_output, check_place, delete_leftovers, write_whole
from ianet.packing import pack


def test_a_file_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "folder" / "file"
    write_whole(target, "text")
    assert target.read_text() == "text"

    def fail(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match="the disk is full"):
            write_whole(target, b"other")
    assert target.read_text() == "text"
    assert [path.name for path in target.parent.iterdir()] == ["file"]
    write_whole(target, b"\x00other")
    assert target.read_bytes() == b"\x00other"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "folder"

    def fail() -> None:
        with build_whole(target) as folder:
            folder.mkdir()
            (folder / "first").touch()
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with build_whole(target) as folder:
        folder.mkdir()
        (folder / "first").touch()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [target]


def leave(path: Path, kind: str) -> None:
    """Write a file, or a folder with a file in a folder."""
    if kind == "folder":
        (path / "deep").mkdir(parents=True)
        path = path / "deep" / "half"
    path.write_text("half")


@pytest.mark.parametrize("old", ["file", "folder"])
@pytest.mark.parametrize("new", ["file", "folder"])
def test_what_a_process_of_the_same_id_left_is_replaced(old: str, new: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    leave(tmp_path / f".target.{os.getpid()}", old)
    with build_whole(target) as temporary:
        assert not temporary.exists()
        if new == "folder":
            temporary.mkdir()
        content = temporary / "first" if new == "folder" else temporary
        content.write_text("text")
    content = target / "first" if new == "folder" else target
    assert content.read_text() == "text"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [content]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_leftovers_of_a_target_are_deleted_and_nothing_else(kind: str, tmp_path: Path) -> None:
    """Only one process at a time writes a target. So the id of a leftover does not matter."""
    target = tmp_path / "d.a.r.1"
    others = [tmp_path / name for name in (".d.a.r.10.77", ".d.a.r.1", "d.a.r.1.77")]
    for path in (target, *others):
        leave(path, kind)
    missing = 2**22 + 1  # more than the largest id that Linux gives
    for number in (missing, os.getpid(), os.getppid()):
        leave(tmp_path / f".d.a.r.1.{number}", kind)
    assert len(list(tmp_path.iterdir())) == 7
    for _ in range(2):
        delete_leftovers(target)
        assert sorted(tmp_path.iterdir()) == sorted([target, *others])
    delete_leftovers(tmp_path / "missing" / "target")


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file"

    def fail(number: int | None, *name: str) -> None:
        with build_whole(target) as temporary:
            temporary.write_text("half")
            raise OSError(number, "No space left on device", *name) if number else OSError("odd")

    with pytest.raises(OSError, match=rf"No space left on device: '{re.escape(str(target))}'$"):
        fail(errno.ENOSPC)
    with pytest.raises(OSError, match=r"No space left on device: 'other'$"):
        fail(errno.ENOSPC, "other")
    with pytest.raises(OSError, match=r"^odd$"):
        fail(None)
    assert list(target.parent.iterdir()) == []


def test_a_full_disk_is_named_by_a_library_that_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system allows no file above some bytes, which fails as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    target = tmp_path / "64x32.npy"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
        with pytest.raises(OSError, match=rf"File too large: '{re.escape(str(target))}'$"):
            list(pack(lambda _: Image.new("RGB", (32, 64)), ["a", "b"], (64, 32), target))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder.csv").mkdir()
    Path("link").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"^folder\.csv is a folder: name a file$"):
        check_output(Path("folder.csv"))
    for name in ("file", "link"):
        for below in (Path(name, "a.csv"), Path(name, "b/c/a.csv")):
            message = f"{below} cannot be written, as {tmp_path / name} is no folder: name another"
            for check in (check_output, check_place):
                with pytest.raises(ValueError, match=f"^{re.escape(message)} one$"):
                    check(below)
    long = Path(f"{'x' * 253}.csv")  # the temporary file has a longer name
    for name in (long, Path("x" * 300, "a.csv")):
        with pytest.raises(
            ValueError, match=r"cannot be written \(File name too long\): rename it"
        ):
            check_output(name)
    check_output(Path("new/folder/a.csv"))
    check_output(Path("file"))
    check_output(Path("link"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.csv", "link"]
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ValueError, match=f"as {re.escape(str(tmp_path))} is read-only: name ano"):
        check_output(Path("new/a.csv"))


def test_a_file_that_is_read_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in.csv", "other.csv"):
        Path(name).touch()
    Path("folder").mkdir()
    Path("link.csv").symlink_to("in.csv")
    Path("hard.csv").hardlink_to("in.csv")
    others = [Path("missing.csv"), Path("folder"), tmp_path / "in.csv"]
    for name in ("in.csv", "folder/../in.csv", "link.csv", "hard.csv"):
        with pytest.raises(
            ValueError, match=rf"^{name} would overwrite {tmp_path}/in\.csv: name another file$"
        ):
            check_output(Path(name), others)
    with pytest.raises(ValueError, match=r"/missing\.csv would overwrite missing\.csv: name an"):
        check_output(tmp_path / "folder/../missing.csv", others)
    check_output(Path("other.csv"), others)
    check_output(Path("folder/in.csv"), others)
