"""Sources, and each reader on small sets in its published layout and on what is real."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import noise, packed
from numpy.typing import NDArray
from scipy.io import savemat

from ianet import network as networks
from ianet.datasets import cuhk03, dukemtmc, folders, listed, msmt17
from ianet.datasets.source import Files, open_source
from ianet.network import Network
from ianet.options import NetworkOptions
from pipeline.config import settings
from pipeline.config.settings import SettingsError
from pipeline.data import readers
from pipeline.data.splits import split_of_run
from pipeline.plan.runs import Evaluation, Run, check_prepared
from pipeline.scoring import score
from pipeline.stages import evaluate, pack, prepare

SHARED = Path(__file__).parents[2] / "shared" / "data"
CUHK03 = SHARED / "cuhk03-detected-64x128.zip"
CONFIG = SHARED / "cuhk03-new-protocol" / "cuhk03_new_protocol_config_detected.mat"
MSMT17 = SHARED / "msmt17-lists.zip"


def written(root: Path, names: list[str]) -> Path:
    """Small images of noise under these names."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(noise(seed, 16, 8))
    return root


def rows(table: pd.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return list(table[list(columns)].itertuples(index=False, name=None))


# Sources


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
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


def test_dukemtmc_and_market1501_are_told_apart(tmp_path: Path, market: Path) -> None:
    source = written(tmp_path / "duke", DUKE)
    assert readers.guess_reader(source) == "dukemtmc"
    assert readers.guess_reader(market) == "market1501"
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
    assert readers.guess_reader(source) == "msmt17"


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


def image(pair: int, person: int, column: int) -> NDArray[np.uint8]:
    """(H, W, 3), of a size of its own, with its place in its first pixel."""
    pixels = np.random.default_rng(column).integers(0, 256, (9 + person, 4 + column, 3), np.uint8)
    pixels[0, 0] = pair, person, column
    return pixels


# Pair: for each person the columns that hold an image, from 1.
PEOPLE = {
    1: [[1, 2, 6], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [5, 7]],
    2: [[1, 10], [2, 3, 6]],
    3: [[4, 9]],
    4: [],
    5: [[1, 6]],
}
TESTSETS = [[(1, 1), (2, 2)], [(1, 3), (3, 1)], [(1, 2), (2, 1)]]


class Mat:
    """Writes what MATLAB does with -v7.3: a header, transposed arrays, cells of references."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.heap = file.create_group("#refs#")

    def array(self, values: NDArray[Any], kind: str) -> h5py.Reference:
        """An array as MATLAB has it, in the heap."""
        name = f"{len(self.heap):x}"
        if values.size:
            made = self.heap.create_dataset(name, data=values.T)
        else:  # an empty array is its size
            made = self.heap.create_dataset(name, data=np.zeros(2, np.uint64))
            made.attrs["MATLAB_empty"] = np.uint8(1)
        made.attrs["MATLAB_class"] = np.bytes_(kind)
        return made.ref

    def cells(self, references: list[list[h5py.Reference]]) -> NDArray[Any]:
        """n x m cells."""
        made = np.empty((len(references), len(references[0]) if references else 0), object)
        for place in np.ndindex(made.shape):
            made[place] = references[place[0]][place[1]]
        return made

    def variable(self, name: str, cells: NDArray[Any]) -> None:
        self.file.create_dataset(name, data=cells.T, dtype=h5py.ref_dtype)
        self.file[name].attrs["MATLAB_class"] = np.bytes_("cell")

    def nested(self, cells: NDArray[Any]) -> h5py.Reference:
        name = f"{len(self.heap):x}"
        made = self.heap.create_dataset(name, data=cells.T, dtype=h5py.ref_dtype)
        made.attrs["MATLAB_class"] = np.bytes_("cell")
        return made.ref


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    path = tmp_path / "cuhk03_release" / "cuhk-03.mat"
    path.parent.mkdir()
    with h5py.File(path, "w", userblock_size=512) as file:
        mat = Mat(file)
        for images in ("labeled", "detected"):
            pairs = []
            for pair, people in PEOPLE.items():
                cells = [
                    [
                        mat.array(
                            image(pair, person, column)
                            # A detector missed this one.
                            if column in columns and (images, pair, person, column) != MISSED
                            else np.zeros((0, 0), np.uint8),
                            "uint8",
                        )
                        for column in range(1, 11)
                    ]
                    for person, columns in enumerate(people, 1)
                ]
                pairs.append([mat.nested(mat.cells(cells))] if cells else [_none(mat)])
            mat.variable(images, mat.cells(pairs))  # 5 x 1
        tests = [[mat.array(np.array(test, np.float64), "double")] for test in TESTSETS]
        mat.variable("testsets", mat.cells(tests))  # 20 x 1
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


MISSED = ("detected", 1, 2, 5)


def _none(mat: Mat) -> h5py.Reference:
    return mat.nested(np.empty((0, 10), object))


def test_cuhk03_classic(mat: Path) -> None:
    listing = cuhk03.read(mat, images="labeled", protocol="classic", published=False)
    table = listing.table
    assert listing.scoring == "single_shot"
    assert listing.counts == {
        "images": 24, "identities": 7, "splits": 3, "train identities": 5, "test identities": 2,
    }  # fmt: skip
    assert table.path.tolist()[:3] == ["1_001_1_01", "1_001_1_02", "1_001_2_06"]
    # Persons are counted through the pairs, which have 843, 440, 77, 58 and 49 people.
    assert table.groupby("person").size().to_dict() == {
        1: 3, 2: 10, 3: 2, 844: 2, 845: 3, 1284: 2, 1419: 2,
    }  # fmt: skip
    for number, tested in enumerate([{1, 845}, {3, 1284}, {2, 844}]):
        split = table[f"split_{number}"]
        assert set(table.person[split != "train"]) == tested
        assert ((split == "query") == (table.person.isin(tested) & (table.camera == 1))).all()
        assert ((split == "gallery") == (table.person.isin(tested) & (table.camera == 2))).all()
    for path in table.path:
        pair, person, _, column = map(int, path.split("_"))
        assert np.array_equal(listing.open(path), image(pair, person, column))


def test_cuhk03_detected_lacks_what_the_detector_missed(mat: Path) -> None:
    options = {"protocol": "classic", "published": False}
    labeled = cuhk03.read(mat, images="labeled", **options).table.path
    detected = cuhk03.read(mat.parent, images="detected", **options).table.path
    assert set(labeled) - set(detected) == {"1_002_1_05"}


def new_config(path: Path, names: list[str], **splits: list[int]) -> Path:
    """As cuhk03_new_protocol_config_labeled.mat is: MATLAB 5, names in cells, places from 1."""
    files = np.empty((len(names), 1), object)
    files[:, 0] = [f"{name}.png" for name in names]
    indices = {f"{name}_idx": np.array(places)[:, None] for name, places in splits.items()}
    savemat(path, {"filelist": files, **indices})
    return path


def test_cuhk03_new(mat: Path, tmp_path: Path) -> None:
    options = {"images": "labeled", "published": False}
    names = cuhk03.read(mat, protocol="classic", **options).table.path.tolist()
    config = new_config(
        tmp_path / "config.mat", names, train=[1, 2, 3], query=[24], gallery=[23, 22]
    )
    table, counts, opened, scoring = cuhk03.read(mat, protocol="new", config=config, **options)
    assert scoring == "ranking"
    assert rows(table, "path", "person", "camera", "split") == [
        ("1_001_1_01", 1, 1, "train"),
        ("1_001_1_02", 1, 1, "train"),
        ("1_001_2_06", 1, 2, "train"),
        ("5_001_2_06", 1419, 2, "query"),
        ("3_001_2_09", 1284, 2, "gallery"),
        ("5_001_1_01", 1419, 1, "gallery"),
    ]
    assert counts["gallery identities"] == 2
    assert opened("5_001_2_06").size == (10, 10)


def test_mistakes_in_cuhk03(mat: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images is 'both': choose labeled or detected"):
        cuhk03.read(mat, images="both", protocol="classic")
    with pytest.raises(ValueError, match="protocol is 'old': choose classic or new"):
        cuhk03.read(mat, images="labeled", protocol="old")
    with pytest.raises(ValueError, match="needs config: the path of cuhk03_new_protocol_config_la"):
        cuhk03.read(mat, images="labeled", protocol="new")
    with pytest.raises(ValueError, match="classic takes no config"):
        cuhk03.read(mat, images="labeled", protocol="classic", config=tmp_path)
    with pytest.raises(ValueError, match="images: 24 instead of 14,096"):
        cuhk03.read(mat, images="labeled", protocol="classic")
    with pytest.raises(FileNotFoundError, match=r"nothing\.mat does not exist"):
        cuhk03.read(tmp_path / "nothing.mat", images="labeled", protocol="classic")
    with pytest.raises(FileNotFoundError, match="is at github"):
        cuhk03.read(mat, images="labeled", protocol="new", config=tmp_path / "nothing.mat")
    with pytest.raises(ValueError, match="is damaged or no file of the new protocol"):
        cuhk03.read(mat, images="labeled", protocol="new", config=mat)
    other = new_config(tmp_path / "other.mat", ["1_001_1_01"], train=[1], query=[1], gallery=[1])
    with pytest.raises(ValueError, match=r"other\.mat is for 1 images; .* has 24 and lacks 0"):
        cuhk03.read(mat, images="labeled", protocol="new", config=other)
    images = written(tmp_path / "images", ["0000_00.jpg", "0843_09.jpg"])
    with pytest.raises(ValueError, match=r"test sets are in cuhk-03\.mat only"):
        cuhk03.read(images, images="labeled", protocol="classic")
    mat.write_bytes(mat.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r"cuhk-03\.mat is damaged or not CUHK03's"):
        cuhk03.read(mat, images="labeled", protocol="classic")


def test_cuhk03_as_images(tmp_path: Path) -> None:
    names = ["0000_00.jpg", "0842_05.jpg", "0843_09.jpg", "1466_04.jpg"]
    source = packed(written(tmp_path / "images", names), "zip")
    places = ["1_001_1_01", "1_843_2_06", "2_001_2_10", "5_049_1_05"]
    config = new_config(tmp_path / "c.mat", places, train=[1], query=[2, 3], gallery=[4])
    table = cuhk03.read(
        source, images="detected", protocol="new", config=config, published=False
    ).table
    assert rows(table, "path", "person", "camera", "split") == [
        ("images/0000_00.jpg", 1, 1, "train"),
        ("images/0842_05.jpg", 843, 2, "query"),
        ("images/0843_09.jpg", 844, 2, "query"),
        ("images/1466_04.jpg", 1467, 1, "gallery"),
    ]
    assert readers.guess_reader(source) == "cuhk03"


@pytest.mark.skipif(not CUHK03.exists(), reason="../shared/data does not hold CUHK03")
def test_the_real_cuhk03_detected() -> None:
    listing = cuhk03.read(CUHK03, images="detected", protocol="new", config=CONFIG)
    assert list(listing.counts.values()) == [7_365, 767, 1_400, 700, 5_332, 700]
    # The protocol: a query for each identity and camera, the others are its gallery.
    queries = listing.table[listing.table.split == "query"]
    assert not queries.duplicated(["person", "camera"]).any()
    assert listing.open(listing.table.path[0]).size == (64, 128)
    labeled = CONFIG.with_name("cuhk03_new_protocol_config_labeled.mat")
    with pytest.raises(ValueError, match=r"is for 14,096 images; .* has 14,097 and lacks"):
        cuhk03.read(CUHK03, images="labeled", protocol="new", config=labeled)


# One's own


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
    assert readers.guess_reader(source) == "listed"


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
        ("camera", "view", r"has no column camera\. Expected: a CSV or Parquet file with the col"),
    ],
)
def test_mistakes_in_a_list(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "people.csv").write_text(LISTED.to_csv(index=False).replace(old, new))
    with pytest.raises(ValueError, match=message):
        listed.read(tmp_path / "people.csv")


def test_files_that_are_no_lists(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no table"):
        listed.read(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv cannot be read"):
        listed.read(tmp_path / "nothing.csv")
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
    assert readers.guess_reader(source) == "folders"


@pytest.mark.parametrize(
    "name",
    ["train/anna/1.jpg", "train/anna/_hall_1.jpg", "anna/hall_1.jpg", "train/hall_1.jpg"],
)
def test_mistakes_in_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="holds no image"):
        folders.read(tmp_path)
    written(tmp_path, [*FOLDERS, name])
    with pytest.raises(ValueError, match=f"{name} does not lie and is not named like"):
        folders.read(tmp_path)


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


@pytest.fixture
def classic(mat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A project with the small CUHK03 prepared and packed, and an untrained run."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["datasets"]["cuhk03-labeled"] |= {
        "source": str(mat), "published": False, "held_out": 2, "recipes": {"plain": "quick"},
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setattr(sys, "argv", ["prepare", "cuhk03-labeled"])
    prepare.main()
    monkeypatch.setattr(sys, "argv", ["pack", "cuhk03-labeled.64x32"])
    pack.main()
    run = Run("cuhk03-labeled", "base", "quick", seed=4)
    run.folder.mkdir(parents=True)
    torch.manual_seed(0)
    networks.save(Network(5, NetworkOptions(backbone="resnet18", weights="none")), run.folder)
    record = {"id": "of MLflow", "environment": {"torch": "2.99.0"}}
    (run.folder / "training.json").write_text(json.dumps(record))
    return run


def test_another_size_leaves_the_first_and_what_is_missing_is_named(
    classic: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def states() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in classic.prepared.iterdir()}

    before = states()
    with pytest.raises(
        FileNotFoundError, match=r"32x16\.npy does not exist: `dvc repro pack@cuhk0"
    ):
        check_prepared(classic.dataset, "32x16")
    monkeypatch.setattr(sys, "argv", ["pack", f"{classic.dataset}.32x16"])
    pack.main()
    check_prepared(classic.dataset, "32x16")
    after = states()
    assert after.pop("32x16.npy")
    assert after == before
    (classic.prepared / "table.parquet").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"parquet does not exist: `dvc repro prepare@cuhk0"
    ):
        pack.main()


def test_the_classic_protocol_through_the_pipeline(
    classic: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_parquet(classic.prepared / "table.parquet")
    assert np.load(classic.prepared / "64x32.npy").shape == (24, 64, 32, 3)
    described = json.loads((classic.prepared / "dataset.json").read_text())
    assert described["scoring"] == "single_shot"
    assert described["counts"]["splits"] == 3
    for number in range(3):  # two of each split's five training identities
        out = table[table[f"held_out_{number}"] != ""]
        assert out.person.nunique() == 2
        assert (out[f"split_{number}"] == "train").all()
    # Seed 4 has split 4 modulo 3; its queries are four of person (1, 3) and (3, 1).
    network = networks.load(classic.folder)
    split = split_of_run(table, classic.seed, hold_out=False)
    scores = score(network, classic.prepared, "64x32", split, torch.device("cpu"))
    assert scores.cmc.index.tolist() == np.flatnonzero(table.split_1 == "query").tolist()
    assert len(scores.cmc) == 2
    assert scores.without_match == 0
    alone = (split == "gallery") & (table.person == table.person[scores.cmc.index[0]])
    rest = score(network, classic.prepared, "64x32", split.mask(alone, ""), torch.device("cpu"))
    assert rest.without_match == 1
    assert rest.cmc.index.tolist() == scores.cmc.index.tolist()[1:]
    assert scores.means.empty
    assert (scores.cmc[2] == 1).all()  # of two identities

    sent: list[tuple[Run, bool]] = []

    def sync_run(run: Run) -> None:
        sent.append((run, Evaluation(classic, classic.dataset).scores.exists()))
        raise ConnectionError("MLflow is away")

    monkeypatch.setattr(evaluate.tracking, "connect", lambda: None)
    monkeypatch.setattr(evaluate.tracking, "sync_run", sync_run)
    monkeypatch.setattr(sys, "argv", ["evaluate", classic.key])
    evaluate.main()
    assert sent == [(classic, True)]  # the file is there with or without MLflow
    saved = json.loads(Evaluation(classic, classic.dataset).scores.read_text())
    assert saved["key"] == "cuhk03-labeled.base.quick.4"
    assert saved["torch"] == "2.99.0"
    weights = (classic.folder / "weights.safetensors").read_bytes()
    assert saved["weights"] == hashlib.sha256(weights).hexdigest()
    assert saved["without_match"] == 0
    assert saved["mAP"] is None
    assert saved["mINP"] is None
    assert saved["top-5"] == 1


def test_a_data_set_is_one_file_and_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of docs/data.md is a reader that is found and works."""
    code = Path("docs/data.md").read_text().split("```python\n")[1].split("```")[0]
    folder = tmp_path / "readers"
    folder.mkdir()
    (folder / "corridor.py").write_text(code)
    monkeypatch.setattr(readers.datasets, "__path__", [*readers.datasets.__path__, str(folder)])
    source = written(
        tmp_path / "Corridor",
        [f"c{n}/{person:04d}_0001.jpg" for n in (1, 2) for person in range(6)],
    )
    listing = readers.read("corridor", source, {"published": False}, "here")
    assert list(listing.counts.values()) == [6, 3, 3, 3, 3, 3]
    assert readers.guess_reader(source) == "corridor"
    sys.modules.pop("ianet.datasets.corridor")
