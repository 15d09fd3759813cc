"""Files and folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from ianet.files import whole, write_whole


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
        with whole(target) as folder:
            folder.mkdir()
            (folder / "first").touch()
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        fail()
    assert list(tmp_path.iterdir()) == []
    with whole(target) as folder:
        folder.mkdir()
        (folder / "first").touch()
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["first"]
    assert list(tmp_path.iterdir()) == [target]
