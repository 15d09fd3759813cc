"""Each reader on small sets in its published layout and on what is real."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import archive_folder, rows, written
from PIL import Image

from ianet import datasets
from ianet.datasets import dukemtmc, folders, listed, market1501, msmt17, persons
from ianet.datasets.source import Files, open_source
from ianet.readers import guess_reader
from pipeline.config import settings
from pipeline.config.settings import SettingsError
from pipeline.data import readers

SHARED = Path(__file__).parents[2] / "shared" / "data"
CUHK03 = SHARED / "cuhk03-detected-64x128.zip"
CONFIG = SHARED / "cuhk03-new-protocol" / "cuhk03_new_protocol_config_detected.mat"
MSMT17 = SHARED / "msmt17-lists.zip"


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
    source = root if kind == "folder" else archive_folder(root, kind)
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
    source = root if kind == "folder" else archive_folder(root, kind)
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
    with pytest.raises(ValueError, match=r"training is 'all': choose one of train, train\+val"):
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


@pytest.mark.slow
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
    ) or archive_folder(root, kind)
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
        listing = listed.read(tmp_path / name)
        assert rows(listing.table, "path", "person", "camera", "split") == [
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
        ("note", "person", r"has no column person, or several\. Expected: a CSV or Parquet file"),
        ("-1,door", "-1,door,x", r"people\.csv is no CSV or Parquet file \(.*saw 6\): write it"),
    ],
)
def test_mistakes_in_a_list(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = LISTED.assign(note="left alone").to_csv(index=False)
    (tmp_path / "people.csv").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        listed.read(tmp_path / "people.csv")


@pytest.mark.parametrize(
    ("cameras", "expected"),
    [
        (pd.array([1, None, 2, 3, 3], "Int64"), ["1", "", "2", "3"]),
        (pd.array([True, None, False, True, True], "boolean"), ["True", "", "False", "True"]),
        (pd.Categorical(["hall", None, "door", "hall", "hall"]), ["hall", "", "door", "hall"]),
        (["hall", None, "door", "hall", "hall"], ["hall", "", "door", "hall"]),
        (
            pd.to_datetime(["2026-11-29 09:00", None, "2026-11-30 10:00", None, None]),
            ["2026-11-29 09:00:00", "", "2026-11-30 10:00:00", ""],
        ),
    ],
)
def test_a_gap_is_a_camera_that_is_unknown(
    cameras: Any, expected: list[str], tmp_path: Path
) -> None:
    LISTED.assign(camera=cameras).to_parquet(tmp_path / "people.parquet")
    assert listed.read(tmp_path / "people.parquet").table.camera.tolist() == expected


@pytest.mark.parametrize("kind", ["Int64", "category", "boolean"])
@pytest.mark.parametrize("column", ["path", "person", "split"])
def test_a_gap_elsewhere_is_refused(column: str, kind: str, tmp_path: Path) -> None:
    values = pd.array([1, 1, 0, None, 0]).astype(kind)
    LISTED.assign(**{column: values}).to_parquet(tmp_path / "people.parquet")
    with pytest.raises(ValueError, match=rf"people\.parquet: image 4 has no {column}: fill it in"):
        listed.read(tmp_path / "people.parquet")


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
    source = root if kind == "folder" else archive_folder(root, kind)
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
    listing = folders.read(written(tmp_path / "folders", names))
    assert rows(listing.table, "camera", "split") == [
        ("", "train"),
        ("hall", "query"),
        ("", "gallery"),
    ]
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
