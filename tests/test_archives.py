"""Folders and archives as sources of images: what is read, and what is refused."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import archive_folder, written

from ianet.datasets import folders, listed
from ianet.datasets import source as sources
from ianet.datasets.source import open_source


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_source_is_read_by_many_threads(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "set"
    contents = {f"part{n % 3}/{n:02d}.bin": bytes([n]) * (1000 + n) for n in range(60)}
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / ".hidden").write_bytes(b"")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "00.bin").write_bytes(b"")
    files = open_source(root if kind == "folder" else archive_folder(root, kind), "")
    start = "" if kind == "folder" else "set/"
    paths = files.paths()
    assert paths == sorted(start + name for name in contents)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(files.read, paths * 5)) == [contents[p[len(start) :]] for p in paths] * 5  # fmt: skip  # noqa: E501
    with pytest.raises(OSError, match="missing"):
        files.read("missing")


def test_a_folder_is_read_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    root = tmp_path / "set"
    elsewhere = tmp_path / "elsewhere"
    for folder in (root / "a", elsewhere):
        folder.mkdir(parents=True)
        (folder / "1.jpg").write_bytes(b"")
    (root / "b").symlink_to(elsewhere)
    for name in ("latest", "current", "a/up"):
        (root / name).symlink_to(root)
    (root / "c").symlink_to(root / "a")
    assert open_source(root, "").paths() == ["a/1.jpg", "b/1.jpg"]


def test_a_folder_goes_before_links_to_the_folder(tmp_path: Path) -> None:
    """However early the name of a link comes, and however deep the folder lies."""
    root = tmp_path / "set"
    written(root, ["b/1.jpg", "b/c/d/2.jpg"])
    written(tmp_path / "elsewhere", ["3.jpg", "x/4.jpg"])
    (root / "a").symlink_to(root / "b/c/d")
    (root / "aa").symlink_to(root / "b")
    for name in ("b/link", "y", "z"):
        (root / name).symlink_to(tmp_path / "elsewhere")
    expected = ["b/1.jpg", "b/c/d/2.jpg", "y/3.jpg", "y/x/4.jpg"]
    assert open_source(root, "").paths() == expected


def tarred(path: Path, *members: tuple[str, bytes, bytes]) -> Path:
    """A tar of members (name, type, content)."""
    with tarfile.open(path, "w") as archive:
        for name, kind, content in members:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname = kind, len(content), "/etc/passwd"
            archive.addfile(member, io.BytesIO(content))
    return path


def test_the_dot_of_tar_c_is_no_part_of_a_path(tmp_path: Path) -> None:
    source = tarred(tmp_path / "a.tar", ("./x/1.txt", tarfile.REGTYPE, b"one"))
    files = open_source(source, "")
    assert files.paths() == ["x/1.txt"]
    assert files.read("x/1.txt") == b"one"


def test_the_dot_of_a_zip_is_no_part_of_a_path(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("./x/", b"")
        archive.writestr("./x//1.txt", b"one")
    files = open_source(tmp_path / "a.zip", "")
    assert files.paths() == ["x/1.txt"]
    assert files.read("x/1.txt") == b"one"


def test_a_zip_of_an_unknown_version_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/1.jpg", b"picture")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 99  # version 9.9 is needed to extract
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.zip is damaged or not a zip \(zip file version 9\.9"):
        open_source(tmp_path / "a.zip", "")


@pytest.mark.parametrize(
    "header",
    [
        {"GNU.sparse.major": "0", "GNU.sparse.map": "0,x", "GNU.sparse.size": "1"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "100"},
    ],
)
def test_a_tar_with_a_wrong_number_in_a_header_is_named(
    header: dict[str, str], tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("x.jpg")
        member.size, member.pax_headers = 512, header
        archive.addfile(member, io.BytesIO(b"z" * 512))
    with pytest.raises(ValueError, match=r"a\.tar is damaged or not a tar \(invalid header: .*\)"):
        open_source(tmp_path / "a.tar", "")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    source = tarred(tmp_path / "a.tar", ("query/x.jpg", kind, b""))
    with pytest.raises(ValueError, match=r"a\.tar holds query/x\.jpg, a link or another thing"):
        open_source(source, "")


@pytest.mark.parametrize("name", ["../x.jpg", "/x.jpg", "query/../../x.jpg"])
def test_names_that_point_outside_are_refused(tmp_path: Path, name: str) -> None:
    source = tarred(tmp_path / "a.tar", (name, tarfile.REGTYPE, b"x"))
    with pytest.raises(ValueError, match=r"a\.tar names .*x\.jpg, which points outside"):
        open_source(source, "")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(ValueError, match=r"a\.zip names .*x\.jpg, which points outside"):
        open_source(tmp_path / "a.zip", "")


@pytest.mark.parametrize("damage", ["a header", "the end", "a tar behind"])
def test_a_tar_is_read_to_its_end(tmp_path: Path, damage: str) -> None:
    members = [(f"query/{n}.jpg", tarfile.REGTYPE, bytes([n]) * 700) for n in range(5)]
    source = tarred(tmp_path / "a.tar", *members)
    with tarfile.open(source) as archive:
        headers = [member.offset for member in archive]
    content = bytearray(source.read_bytes())
    assert len(open_source(source, "").paths()) == 5
    read = 5
    if damage == "a header":
        content[headers[3] + 20] ^= 1
        read = 3
    elif damage == "the end":
        del content[headers[3] :]
        read = 3
    else:
        content = content * 2
    source.write_bytes(content)
    message = rf"a\.tar is damaged or not a tar \(no end follows its {read} files\): fetch it again"
    with pytest.raises(ValueError, match=message):
        open_source(source, "")


@pytest.mark.parametrize("kind", ["tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_half_an_archive_is_refused(tmp_path: Path, kind: str) -> None:
    source = archive_folder(written(tmp_path / "set", ["query/1.jpg", "query/2.jpg"]), kind)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    message = rf"set\.{kind} is damaged or not a {kind[:3]} \(.+\): fetch it again. Expected: a set"
    with pytest.raises(ValueError, match=message):
        open_source(source, "a set")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["query/1.jpg", "query\\1.jpg"])
def test_two_contents_of_one_name_in_a_zip_are_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("query/1.jpg", b"one")
        archive.writestr("query/", b"")
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr(name, b"one")
    assert open_source(tmp_path / "a.zip", "").read("query/1.jpg") == b"one"
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr(name, b"two")
    message = r"a\.zip holds query/1\.jpg twice, with different contents: pack a single one$"
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "a.zip", "")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("query/x.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match=r"a\.zip holds query/x\.jpg, a link: pack the files"):
        open_source(tmp_path / "a.zip", "")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_decompresses_to_no_more_than_it_may(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for name, size in (("1.bin", 3000), ("2.bin", 4000)):
        (root / name).write_bytes(bytes(size))
    source = archive_folder(root, kind)
    monkeypatch.setattr(sources, "ARCHIVE_RATIO", 1)
    monkeypatch.setattr(sources, "MEMBER_BYTES", 4000)
    monkeypatch.setattr(sources, "ARCHIVE_BYTES", 10 * 2**20)
    assert open_source(source, "").read("set/2.bin") == bytes(4000)
    monkeypatch.setattr(sources, "MEMBER_BYTES", 3999)
    with pytest.raises(ValueError, match=r"holds set/2\.bin of 4,000 bytes: .* more than 3,999"):
        open_source(source, "")
    if kind != "tar":  # which holds no more than its size
        monkeypatch.setattr(sources, "MEMBER_BYTES", 4000)
        monkeypatch.setattr(sources, "ARCHIVE_BYTES", 6999)
        with pytest.raises(ValueError, match=r"set\.\S+ decompresses to more than 6,999 bytes, so"):
            open_source(source, "")
        monkeypatch.setattr(sources, "ARCHIVE_RATIO", 1000)
        assert open_source(source, "").read("set/1.bin") == bytes(3000)


def test_a_member_that_says_too_little_is_not_read_further(tmp_path: Path) -> None:
    """The size in a zip's table may be wrong on purpose."""
    source = archive_folder(written(tmp_path / "set", ["1.jpg"]), "zip")
    size = (tmp_path / "set/1.jpg").stat().st_size
    content = source.read_bytes().replace(size.to_bytes(4, "little"), (9).to_bytes(4, "little"))
    source.write_bytes(content)
    files = open_source(source, "")
    with pytest.raises(OSError, match=r"CRC|Overlapped|size"):
        files.read("set/1.jpg")


def test_what_is_no_regular_file_is_told_and_not_read(
    tmp_path: Path, make_pipe: Callable[[Path], None]
) -> None:
    root = written(tmp_path / "set", ["train/anna/c_1.jpg", "query/bert/c_1.jpg"])
    make_pipe(root / "train/anna/c_2.jpg")
    (root / "train/anna/c_3.jpg").symlink_to("/dev/zero")
    (root / "train/anna/c_4.jpg").symlink_to("c_5.jpg")
    (root / "train/anna/c_5.jpg").symlink_to("c_4.jpg")
    listing = folders.read(root)
    for number, reason in (
        (2, "is no regular file"),
        (3, "is no regular file"),
        (4, "Too many levels of symbolic links"),
    ):
        with pytest.raises(ValueError, match=rf"the image train/anna/c_{number}\.jpg .*{reason}"):
            listing.open(f"train/anna/c_{number}.jpg")
    for name in ("people.csv", "set.zip", "set.tar.gz"):
        make_pipe(tmp_path / name)
    with pytest.raises(ValueError, match=r"people\.csv cannot be read .*is no regular file"):
        listed.read(tmp_path / "people.csv")
    for name in ("set.zip", "set.tar.gz"):
        with pytest.raises(ValueError, match=rf"{name} is no regular file: put the file itself"):
            open_source(tmp_path / name, "")


def test_an_archive_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.7z").write_bytes(b"7z\xbc\xaf\x27\x1c")
    message = (
        r"set\.7z is neither a folder nor an archive of a known kind \(\.zip, \.tar, .*unpack it"
    )
    with pytest.raises(ValueError, match=message):
        open_source(tmp_path / "set.7z", "")


def test_a_backslash_in_a_zip_is_a_slash(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("set\\query\\", b"")
        archive.writestr("set\\query\\x.jpg", b"x")
    files = open_source(tmp_path / "a.zip", "")
    assert files.paths() == ["set/query/x.jpg"]
    assert files.read("set/query/x.jpg") == b"x"
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("query\\..\\..\\x.jpg", b"x")
    with pytest.raises(
        ValueError, match=r"b\.zip names query/\.\./\.\./x\.jpg, which points outside"
    ):
        open_source(tmp_path / "b.zip", "")


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, kind: str) -> None:
    """José, as an old archive has it, in Latin-1."""
    root = tmp_path / "set"
    (root / "query").mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(root / "query") + b"/Jos\xe9.jpg")).write_bytes(b"")
    with pytest.raises(ValueError, match=r"query/Jos\\xe9\.jpg, which is not UTF-8: rename it"):
        open_source(root if kind == "folder" else archive_folder(root, kind), "").paths()


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, ["train/anna/1.jpg", "train/bert/1.jpg"])
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if os.fspath(path).endswith("bert"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*train/bert'"):
        open_source(tmp_path, "").paths()


def test_an_image_damaged_within_a_zip_is_named(tmp_path: Path) -> None:
    source = archive_folder(written(tmp_path / "set", ["train/anna/c1_1.jpg"]), "zip")
    content = bytearray(source.read_bytes())
    content[200:210] = bytes(10)
    source.write_bytes(content)
    listing = folders.read(source)
    with pytest.raises(ValueError, match=r"the image set/train/anna/c1_1\.jpg cannot be decoded"):
        listing.open("set/train/anna/c1_1.jpg")
