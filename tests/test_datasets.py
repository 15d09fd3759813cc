"""Sources, and each reader on small sets in its published layout and on what is real."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import packed, rows, written
from PIL import Image

from ianet import datasets
from ianet.datasets import dukemtmc, folders, listed, market1501, msmt17, persons
from ianet.datasets import source as sources
from ianet.datasets.source import Files, open_source
from ianet.readers import guess_reader
from pipeline.config import settings
from pipeline.config.settings import SettingsError
from pipeline.data import readers

SHARED = Path(__file__).parents[2] / "shared" / "data"
CUHK03 = SHARED / "cuhk03-detected-64x128.zip"
CONFIG = SHARED / "cuhk03-new-protocol" / "cuhk03_new_protocol_config_detected.mat"
MSMT17 = SHARED / "msmt17-lists.zip"


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
    files = open_source(root if kind == "folder" else packed(root, kind), "")
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
    source = packed(written(tmp_path / "set", ["query/1.jpg", "query/2.jpg"]), kind)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    message = rf"set\.{kind} is damaged or not a {kind[:3]} \(.+\): fetch it again. Expected: a set"
    with pytest.raises(ValueError, match=message):
        open_source(source, "a set")


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
    source = packed(root, kind)
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
    source = packed(written(tmp_path / "set", ["1.jpg"]), "zip")
    size = (tmp_path / "set/1.jpg").stat().st_size
    content = source.read_bytes().replace(size.to_bytes(4, "little"), (9).to_bytes(4, "little"))
    source.write_bytes(content)
    files = open_source(source, "")
    with pytest.raises(OSError, match=r"CRC|Overlapped|size"):
        files.read("set/1.jpg")


def test_what_is_no_regular_file_is_told_and_not_read(tmp_path: Path) -> None:
    root = written(tmp_path / "set", ["train/anna/c_1.jpg", "query/bert/c_1.jpg"])
    os.mkfifo(root / "train/anna/c_2.jpg")
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
        os.mkfifo(tmp_path / name)
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
        open_source(root if kind == "folder" else packed(root, kind), "").paths()


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
    source = packed(written(tmp_path / "set", ["train/anna/c1_1.jpg"]), "zip")
    content = bytearray(source.read_bytes())
    content[200:210] = bytes(10)
    source.write_bytes(content)
    listing = folders.read(source)
    with pytest.raises(ValueError, match=r"the image set/train/anna/c1_1\.jpg cannot be decoded"):
        listing.open("set/train/anna/c1_1.jpg")


# DukeMTMC-reID


DUKE = [
    "bounding_box_train/0001_c2_f0046182.jpg",
    "bounding_box_train/0001_c8_f0046302.jpg",
    "query/0005_c2_f0046985.jpg",
    "bounding_box_test/0005_c5_f0051341.jpg",
    "bounding_box_test/7139_c1_f0000001.jpg",
]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_dukemtmc(tmp_path: Path, kind: str) -> None:
    root = written(tmp_path / "DukeMTMC-reID", DUKE)
    source = root if kind == "folder" else packed(root, kind)
    table, counts, _, scoring = dukemtmc.read(source, published=False)
    assert rows(table, "person", "camera", "split") == [
        (1, 2, "train"), (1, 8, "train"), (5, 2, "query"), (5, 5, "gallery"), (7139, 1, "gallery"),
    ]  # fmt: skip
    assert list(counts.values()) == [2, 1, 1, 1, 2, 2]
    assert scoring == "ranking"
    with pytest.raises(ValueError, match=r"not all of DukeMTMC-reID \(train images: 2 instead of"):
        dukemtmc.read(source)


def test_images_of_every_kind_are_read(tmp_path: Path) -> None:
    """A phone's format, too, so that an image which Pillow lacks is named and not left out."""
    for number, suffix in enumerate(["png", "tif", "JPG", "heic"]):
        (tmp_path / "bounding_box_train").mkdir(exist_ok=True)
        path = tmp_path / f"bounding_box_train/{number:04d}_c1s1_000001_01.{suffix}"
        if suffix == "heic":
            path.write_bytes(b"\0\0\0\x18ftypheic")
        else:
            image = Image.new("RGB", (8, 16), (number, 0, 0))
            image.save(path, {"png": "PNG", "tif": "TIFF", "JPG": "JPEG"}[suffix])
    written(tmp_path, ["query/0005_c1s1_000001_01.jpg", "bounding_box_test/0005_c2s1_1_1.jpg"])
    listing = market1501.read(tmp_path, published=False)
    paths = listing.table.path[:4]
    assert [Path(path).suffix for path in paths] == [".png", ".tif", ".JPG", ".heic"]
    assert [listing.open(path).getpixel((0, 0)) for path in paths[:2]] == [(0, 0, 0), (1, 0, 0)]
    with pytest.raises(
        ValueError, match=r"0003_c1s1_000001_01\.heic cannot be decoded \(cannot id"
    ):
        listing.open(paths[3])
    assert guess_reader(tmp_path) == "market1501"
    (tmp_path / "query" / "person5.PNG").write_bytes(b"")
    with pytest.raises(ValueError, match=r"query/person5\.PNG is not named like 0002_c1s1"):
        market1501.read(tmp_path, published=False)


@pytest.mark.parametrize(
    ("reader", "names"), [("dukemtmc", DUKE), ("folders", ["train/anna/hall_1.jpg"])]
)
def test_two_sets_in_one_source_are_refused(tmp_path: Path, reader: str, names: list[str]) -> None:
    for root in ("city", "town"):
        written(tmp_path / root, names)
    message = (
        r"holds a folder \w+ in \./city and in \./town, as of several data sets: name the fold"
    )
    with pytest.raises(ValueError, match=message):
        readers.read(reader, tmp_path, {"published": False}, "here")


def test_dukemtmc_and_market1501_are_told_apart(tmp_path: Path, market: Path) -> None:
    source = written(tmp_path / "duke", DUKE)
    assert guess_reader(source) == "dukemtmc"
    assert guess_reader(market) == "market1501"
    with pytest.raises(ValueError, match=r"0005_c2_f0046985\.jpg with a camera of 1 to 8"):
        dukemtmc.read(market)


# MSMT17


MSMT17_LISTS = {
    "train": ["0000/0000_045_12_0303morning_0006_2.jpg 0", "0001/0001_001_01_0303noon_0_1.jpg 1"],
    "val": ["0000/0000_013_04_0303morning_0020_2.jpg 0"],
    "query": ["0000/0000_000_01_0303morning_0015_0.jpg 0"],
    "gallery": ["0000/0000_008_15_0303morning_0019_2_ex.jpg 0"],
}


def msmt17_set(root: Path, version: str, lists: dict[str, list[str]] = MSMT17_LISTS) -> Path:
    for name, lines in lists.items():
        folder = msmt17.FOLDERS[version][msmt17.LISTS[name]]
        written(root / folder, [line.split()[0] for line in lines])
        (root / f"list_{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    return root


@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_msmt17(tmp_path: Path, version: str, kind: str) -> None:
    root = msmt17_set(tmp_path / f"MSMT17_{version}", version)
    source = root if kind == "folder" else packed(root, kind)
    table, counts, opened, _ = msmt17.read(source, training="train", published=False)
    # Test identities are counted on from those of training.
    assert rows(table, "person", "camera", "split") == [
        (0, 12, "train"), (1, 1, "train"), (1041, 1, "query"), (1041, 15, "gallery"),
    ]  # fmt: skip
    assert counts["train images"] == 2
    assert opened(table.path[0]).size == (8, 16)
    more = msmt17.read(source, training="train+val", published=False)
    assert more.counts["train images"] == 3
    assert more.counts["train identities"] == 2
    assert rows(more.table[more.table.camera == 4], "person", "split") == [(0, "train")]
    assert guess_reader(source) == "msmt17"


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    root = msmt17_set(tmp_path / "MSMT17_V1", "V1")
    expected = msmt17.read(root, training="train", published=False).table
    for path in root.glob("list_*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert msmt17.read(root, training="train", published=False).table.equals(expected)


def test_mistakes_in_msmt17(tmp_path: Path) -> None:
    root = msmt17_set(tmp_path / "MSMT17_V1", "V1")
    with pytest.raises(ValueError, match=r"training is 'all': choose train or train\+val"):
        msmt17.read(root, training="all", published=False)
    with pytest.raises(ValueError, match="train images: 2 instead of 30,248"):
        msmt17.read(root, training="train")
    with pytest.raises(ValueError, match="train images: 3 instead of 32,621"):
        msmt17.read(root, training="train+val")
    msmt17_set(tmp_path / "MSMT17_V2", "V2")
    with pytest.raises(ValueError, match=r"V1 in \./MSMT17_V1/, V2 in \./MSMT17_V2/\): name the"):
        msmt17.read(tmp_path, training="train", published=False)
    (root / "test/0000/0000_000_01_0303morning_0015_0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks test/0000/0000_000_01.*list_query\.txt"):
        msmt17.read(root, training="train", published=False)
    (root / "list_query.txt").write_text("../../secret.jpg 0\n")
    with pytest.raises(ValueError, match=r"line 1 of list_query\.txt is '\.\./\.\./secret\.jpg 0'"):
        msmt17.read(root, training="train", published=False)
    (root / "list_query.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no list_query\.txt"):
        msmt17.read(root, training="train", published=False)


class Named:
    """The real lists beside images that only have names."""

    def __init__(self, lists: Files) -> None:
        self.read = lists.read
        self._lists = lists

    def paths(self) -> list[str]:
        images = [
            f"{msmt17.FOLDERS['V1'][part]}/{line.split()[0]}"
            for name, part in msmt17.LISTS.items()
            for line in self.read(f"list_{name}.txt").decode().splitlines()
        ]
        return [*self._lists.paths(), *images]


@pytest.mark.skipif(not MSMT17.exists(), reason="../shared/data does not hold MSMT17's lists")
def test_msmt17s_own_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msmt17, "open_source", lambda path, _: Named(open_source(path, "")))
    table, counts, *_ = msmt17.read(MSMT17, training="train")
    assert counts == msmt17.PUBLISHED
    assert sorted(table.camera.unique()) == list(range(1, 16))
    train, test = table[table.split == "train"], table[table.split != "train"]
    assert sorted(train.person.unique()) == list(range(1041))
    assert sorted(test.person.unique()) == list(range(1041, 1041 + 3060))
    with_val = msmt17.read(MSMT17, training="train+val")
    assert with_val.counts == {**msmt17.PUBLISHED, "train images": 30_248 + 2_373}


# CUHK03


LISTED = pd.DataFrame(
    [
        ("images/1.jpg", "007", "hall", "train"),
        ("images/2.jpg", "7", "door", "train"),
        ("images/3.jpg", "NA", "hall", "query"),
        ("images/4.jpg", "NA", "door", "gallery"),
        ("images/5.jpg", "-1", "door", "gallery"),
    ],
    columns=["path", "person", "camera", "split"],
)


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder", "zip", "tar.gz"])
def test_listed(tmp_path: Path, kind: str) -> None:
    root = written(tmp_path / "mine", LISTED.path.tolist())
    if kind == "parquet":
        LISTED.to_parquet(root / "people.parquet")
    else:
        LISTED.assign(note="left alone").to_csv(root / "people.csv", index=False)
    source = {"csv": root / "people.csv", "parquet": root / "people.parquet", "folder": root}.get(
        kind
    ) or packed(root, kind)
    start = "mine/" if kind in ("zip", "tar.gz") else ""
    table, counts, opened, scoring = listed.read(source)
    # 007 is not 7, NA is a name, and junk is gone.
    assert rows(table, "path", "person", "camera", "split") == [
        (start + path, *row) for path, *row in LISTED[:4].itertuples(index=False, name=None)
    ]
    assert counts["train identities"] == 2
    assert scoring == "ranking"
    assert [opened(path).size for path in table.path] == [(8, 16)] * 4
    assert guess_reader(source) == "listed"


def test_blanks_are_no_part_of_a_value(tmp_path: Path) -> None:
    table = LISTED.assign(person=[1, 1, 2, 2, -1])
    written(tmp_path, table.path.tolist())
    padded = (
        table.astype(str).map(lambda value: f" {value} ").rename(columns=lambda name: f"{name} ")
    )
    padded.to_csv(tmp_path / "people.csv", index=False)
    padded.to_parquet(tmp_path / "people.parquet")
    for name in ("people.csv", "people.parquet"):
        found = listed.read(tmp_path / name).table
        assert rows(found, "path", "person", "camera", "split") == [
            ("images/1.jpg", 1, "hall", "train"), ("images/2.jpg", 1, "door", "train"),
            ("images/3.jpg", 2, "hall", "query"), ("images/4.jpg", 2, "door", "gallery"),
        ]  # fmt: skip


def test_integers_stay_integers(tmp_path: Path) -> None:
    root = written(tmp_path, LISTED.path.tolist())
    numbers = LISTED.assign(person=[12, 3, 0, 0, -1])
    numbers.to_csv(root / "people.csv", index=False)
    numbers.to_parquet(root / "people.parquet")
    for name in ("people.csv", "people.parquet"):
        assert listed.read(root / name).table.person.tolist() == [12, 3, 0, 0]
    # As pandas makes them of a column that had a gap; -1.0 is junk, too.
    (root / "people.csv").unlink()
    numbers.astype({"person": float}).to_parquet(root / "people.parquet")
    assert listed.read(root / "people.parquet").table.person.tolist() == [12, 3, 0, 0]
    numbers.assign(person=[12.5, 3.0, 0.0, 0.0, -1.0]).to_parquet(root / "people.parquet")
    persons = listed.read(root / "people.parquet").table.person.tolist()
    assert persons[:2] == ["12.5", "3.0"]
    numbers.to_parquet(root / "people.parquet")
    numbers.to_csv(root / "people.csv", index=False)
    with pytest.raises(ValueError, match=r"holds people\.csv, people\.parquet: name the one"):
        listed.read(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("images/2.jpg", "../2.jpg", r"image 2 names \.\./2\.jpg, which points outside"),
        ("images/2.jpg", "/etc/2.jpg", r"image 2 names /etc/2\.jpg, which points outside"),
        ("query", "probe", r"image 3 \(images/3\.jpg\) is in split 'probe': choose one of train"),
        ("-1", " ", r"image 5 has no person: fill it in"),
        ("person", "view", r"has no column person, or several\. Expected: a CSV or Parquet file"),
        ("note", "camera ", r"has no column camera, or several\. Expected: a CSV or Parquet file"),
    ],
)
def test_mistakes_in_a_list(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = LISTED.assign(note="left alone").to_csv(index=False)
    (tmp_path / "people.csv").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        listed.read(tmp_path / "people.csv")


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no table"):
        listed.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv cannot be read"):
        listed.read(tmp_path / "nothing.csv")
    buffer = io.BytesIO()
    LISTED.to_parquet(buffer)
    for length in range(4, buffer.tell(), 200):
        (tmp_path / "cut.parquet").write_bytes(buffer.getvalue()[:length] + b"PAR1")
        with pytest.raises(ValueError, match=r"cut\.parquet is no CSV or Parquet file"):
            listed.read(tmp_path / "cut.parquet")
    for name in ("empty.csv", "a.parquet", "b.csv"):
        (tmp_path / name).write_bytes(b"\xff\xd8\n" if name != "empty.csv" else b"")
        with pytest.raises(ValueError, match="is no CSV or Parquet file"):
            listed.read(tmp_path / name)


FOLDERS = [
    "train/anna/hall_1.jpg",
    "train/anna/door_2.png",
    "query/bert/hall_1.jpeg",
    "gallery/bert/door_x_1.JPG",
]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_folders(tmp_path: Path, kind: str) -> None:
    root = written(tmp_path / "mine", FOLDERS)
    (root / "notes.txt").write_text("left alone")
    source = root if kind == "folder" else packed(root, kind)
    table, counts, opened, _ = folders.read(source)
    assert rows(table, "person", "camera", "split") == [
        ("anna", "door", "train"), ("anna", "hall", "train"),
        ("bert", "hall", "query"), ("bert", "door", "gallery"),
    ]  # fmt: skip
    assert counts["train identities"] == 1
    assert opened(table.path[0]).size == (8, 16)
    assert guess_reader(source) == "folders"


@pytest.mark.parametrize(
    "name",
    ["anna/hall_1.jpg", "train/hall_1.jpg", "trained/anna/hall_1.jpg"],
)
def test_mistakes_in_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="holds no image"):
        folders.read(tmp_path)
    written(tmp_path, [*FOLDERS, name])
    with pytest.raises(ValueError, match=f"{name} does not lie like"):
        folders.read(tmp_path)


def test_a_camera_may_be_unknown(tmp_path: Path) -> None:
    names = ["train/anna/1.jpg", "query/bert/hall_2.jpg", "gallery/bert/_3.jpg"]
    found = folders.read(written(tmp_path / "folders", names)).table
    assert rows(found, "camera", "split") == [("", "train"), ("hall", "query"), ("", "gallery")]
    root = written(tmp_path / "listed", LISTED.path.tolist())
    for table, cameras in [
        (LISTED.drop(columns="camera"), ["", "", "", ""]),
        (LISTED.assign(camera=["hall", None, " ", "door", "hall"]), ["hall", "", "", "door"]),
    ]:
        table.to_csv(root / "people.csv", index=False)
        assert listed.read(root / "people.csv").table.camera.tolist() == cameras
        table.to_parquet(root / "people.parquet")
        assert listed.read(root / "people.parquet").table.camera.tolist() == cameras


def test_persons(tmp_path: Path) -> None:
    root = written(tmp_path / "photos", ["anna/1.jpg", "anna/hall_2.jpg", "bert/3.jpg"])
    table, counts, opened, scoring = persons.read(root)
    for split in ("query", "gallery"):
        assert rows(table[table.split == split], "path", "person", "camera") == [
            ("anna/1.jpg", "anna", ""), ("anna/hall_2.jpg", "anna", "hall"),
            ("bert/3.jpg", "bert", ""),
        ]  # fmt: skip
    assert counts["query images"] == counts["gallery images"] == 3
    assert (opened("bert/3.jpg").size, scoring) == ((8, 16), "ranking")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        persons.read(tmp_path / "empty")
    written(root, ["4.jpg"])
    with pytest.raises(
        ValueError, match=r"4\.jpg lies in no folder of a person: move or remove it"
    ):
        persons.read(root)


# Options, and the pipeline around the readers


@pytest.mark.parametrize("name", list(settings.load().datasets))
def test_the_data_sets_of_params_yaml(name: str) -> None:
    dataset = settings.load().datasets[name]
    options = {**dataset.options, "published": dataset.published}
    if name != "synthetic":
        with pytest.raises(FileNotFoundError, match=r"^data/.* does not exist"):
            readers.read(dataset.reader, Path("data/nowhere.zip"), options, name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trainig": "train"}, "here has no option trainig: choose from training, published"),
        ({}, r"here needs training, without a default: ianet\.datasets\.msmt17 lists the"),
        ({"training": ["train"]}, r"here: training: Input should be a valid string"),
        ({"training": "train", "published": "perhaps"}, r"here: published: Input should be"),
    ],
)
def test_mistakes_in_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        readers.read("msmt17", Path("x"), options, "here")


def test_an_unknown_reader_is_told() -> None:
    with pytest.raises(SettingsError, match="no reader 'viper': choose from cuhk03, dukemtmc, fol"):
        readers.read("viper", Path("x"), {}, "here")


def test_a_data_set_is_one_file_and_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/data.md is a reader that is found and works."""
    code = Path("docs/data.md").read_text().split("```python\n")[1].split("```")[0]
    folder = tmp_path / "readers"
    folder.mkdir()
    (folder / "corridor.py").write_text(code)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(folder)])
    source = written(
        tmp_path / "Corridor",
        [f"c{n}/{person:04d}_0001.jpg" for n in (1, 2) for person in range(6)],
    )
    listing = readers.read("corridor", source, {"published": False}, "here")
    assert list(listing.counts.values()) == [6, 3, 3, 3, 3, 3]
    assert guess_reader(source) == "corridor"
    sys.modules.pop("ianet.datasets.corridor")
