"""CUHK03: its file, its protocols, and the classic protocol through the pipeline."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import archive_folder, rows, written
from numpy.typing import NDArray
from scipy.io import savemat
from small import RECORD

from ianet import network as networks
from ianet.datasets import cuhk03
from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.readers import guess_reader, read_source
from pipeline.data.splits import split_of_run
from pipeline.plan.runs import Evaluation, Run, check_prepared
from pipeline.scoring import score
from pipeline.stages import evaluate, pack, prepare
from pipeline.tracking import training

SHARED = Path(__file__).parents[2] / "shared" / "data"
CUHK03 = SHARED / "cuhk03-detected-64x128.zip"
CONFIG = SHARED / "cuhk03-new-protocol" / "cuhk03_new_protocol_config_detected.mat"
MSMT17 = SHARED / "msmt17-lists.zip"


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
            dataset = self.heap.create_dataset(name, data=values.T)
        else:  # an empty array is its size
            dataset = self.heap.create_dataset(name, data=np.zeros(2, np.uint64))
            dataset.attrs["MATLAB_empty"] = np.uint8(1)
        dataset.attrs["MATLAB_class"] = np.bytes_(kind)
        return dataset.ref

    def cells(self, references: list[list[h5py.Reference]]) -> NDArray[Any]:
        """n x m cells."""
        array = np.empty((len(references), len(references[0]) if references else 0), object)
        for place in np.ndindex(array.shape):
            array[place] = references[place[0]][place[1]]
        return array

    def variable(self, name: str, cells: NDArray[Any]) -> None:
        self.file.create_dataset(name, data=cells.T, dtype=h5py.ref_dtype)
        self.file[name].attrs["MATLAB_class"] = np.bytes_("cell")

    def nested(self, cells: NDArray[Any]) -> h5py.Reference:
        name = f"{len(self.heap):x}"
        dataset = self.heap.create_dataset(name, data=cells.T, dtype=h5py.ref_dtype)
        dataset.attrs["MATLAB_class"] = np.bytes_("cell")
        return dataset.ref


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
    with pytest.raises(ValueError, match="images is 'both': choose one of labeled, detected"):
        cuhk03.read(mat, images="both", protocol="classic")
    with pytest.raises(ValueError, match="protocol is 'old': choose one of classic, new"):
        cuhk03.read(mat, images="labeled", protocol="old")
    with pytest.raises(ValueError, match="needs config: the path of cuhk03_new_protocol_config_la"):
        cuhk03.read(mat, images="labeled", protocol="new")
    with pytest.raises(ValueError, match="classic takes no config"):
        cuhk03.read(mat, images="labeled", protocol="classic", config=tmp_path)
    with pytest.raises(ValueError, match="images: 24 instead of 14,096"):
        cuhk03.read(mat, images="labeled", protocol="classic")
    with pytest.raises(ValueError, match=r"set published to false .*--option published=false\)$"):
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


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ([(1, 1.5)], r"a test set holds pair 1\.0, person 1\.5"),
        ([(1.5, 1)], r"a test set holds pair 1\.5, person 1\.0"),
        ([(1, float("nan"))], r"a test set holds pair 1\.0, person nan"),
        ([], "its testsets are empty"),
    ],
)
def test_wrong_test_sets_are_refused(
    tests: list[tuple[float, float]], message: str, mat: Path
) -> None:
    with h5py.File(mat, "r+") as file:
        del file["testsets"]
        cells = file.create_dataset("testsets", (1, len(tests)), h5py.ref_dtype)
        for number, test in enumerate(tests):
            cells[0, number] = file.create_dataset(f"test {number}", data=np.array([test]).T).ref
    with pytest.raises(ValueError, match=rf"cuhk-03\.mat \({message}\): fetch it again$"):
        cuhk03.read(mat, images="labeled", protocol="classic", published=False)


@pytest.mark.parametrize("images", ["labeled", "detected"])
def test_a_damaged_mat_names_itself(images: str, mat: Path) -> None:
    """Each part of the file in turn is overwritten."""
    original = mat.read_bytes()
    starts = range(512, len(original), 2048)
    read = 0
    for start in starts:
        content = bytearray(original)
        content[start : start + 1024] = b"\xff" * 1024
        mat.write_bytes(content)
        try:
            listing = cuhk03.read(mat, images=images, protocol="classic", published=False)
            for path in listing.table.path:
                listing.open(path)
            read += 1
        except ValueError as error:
            assert "cuhk-03.mat" in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
    assert read < len(starts)


def test_a_damaged_config_names_itself(mat: Path, tmp_path: Path) -> None:
    options = {"images": "labeled", "protocol": "new", "published": False}
    config = tmp_path / "config.mat"
    for number in (0, -1, 2, np.nan, 1.5):
        new_config(config, ["1_001_1_01"], train=[1], query=[number], gallery=[1])  # type: ignore[list-item]
        with pytest.raises(ValueError, match=r"config\.mat is damaged .*not in 1 to 1\): fetch it"):
            cuhk03.read(mat, config=config, **options)


def test_a_cut_config_names_itself(
    mat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SciPy ends no process here, so there need not be one for each reading.
    monkeypatch.setattr(cuhk03, "_refuse_crash", lambda config, variables: None)
    options = {"images": "labeled", "protocol": "new", "published": False}
    config = tmp_path / "config.mat"
    content = new_config(config, ["1_001_1_01"], train=[1], query=[1], gallery=[1]).read_bytes()
    for length in range(0, len(content), 16):
        config.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"config\.mat is damaged or no file of the new proto"):
            cuhk03.read(mat, config=config, **options)


def test_a_config_that_ends_scipy_names_itself(mat: Path, tmp_path: Path) -> None:
    config = new_config(tmp_path / "config.mat", ["1_001_1_01"], train=[1], query=[1], gallery=[1])
    content = bytearray(config.read_bytes())
    content[144] = 12  # the class of filelist: int32 in place of cell
    config.write_bytes(content)
    # A SciPy without the crash raises an error.
    with pytest.raises(ValueError, match=r"config\.mat is damaged .*: fetch it again"):
        cuhk03.read(mat, images="labeled", protocol="new", config=config, published=False)


@pytest.mark.parametrize(("code", "is_crash"), [(-11, True), (-6, True), (-9, False), (1, False)])
def test_a_crash_of_scipy_is_a_signal_of_an_error(
    code: int, is_crash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.CompletedProcess([], code)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    if not is_crash:
        cuhk03._refuse_crash(Path("config.mat"), ["filelist"])
        return
    with pytest.raises(
        ValueError, match=r"^config\.mat is damaged \(SciPy ends by SIG(SEGV|ABRT)\)"
    ):
        cuhk03._refuse_crash(Path("config.mat"), ["filelist"])


def test_what_is_no_regular_file_is_told(
    mat: Path, tmp_path: Path, make_pipe: Callable[[Path], None]
) -> None:
    config = tmp_path / "config.mat"
    make_pipe(config)
    with pytest.raises(ValueError, match=r"config\.mat is no regular file"):
        cuhk03.read(mat, images="labeled", protocol="new", config=config)
    with pytest.raises(ValueError, match=r"config\.mat is no regular file"):
        cuhk03.read(config, images="labeled", protocol="classic")


def test_cuhk03_as_images(tmp_path: Path) -> None:
    names = ["0000_00.jpg", "0842_05.png", "0843_09.jpg", "1466_04.jpg"]
    source = archive_folder(written(tmp_path / "images", names), "zip")
    places = ["1_001_1_01", "1_843_2_06", "2_001_2_10", "5_049_1_05"]
    config = new_config(tmp_path / "c.mat", places, train=[1], query=[2, 3], gallery=[4])
    table = cuhk03.read(
        source, images="detected", protocol="new", config=config, published=False
    ).table
    assert rows(table, "path", "person", "camera", "split") == [
        ("images/0000_00.jpg", 1, 1, "train"),
        ("images/0842_05.png", 843, 2, "query"),
        ("images/0843_09.jpg", 844, 2, "query"),
        ("images/1466_04.jpg", 1467, 1, "gallery"),
    ]
    assert guess_reader(source) == "cuhk03"
    listing = read_source(
        source,
        None,
        {"images": "detected", "protocol": "new", "config": str(config), "published": "false"},
    )
    pd.testing.assert_frame_equal(listing.table, table)


@pytest.mark.parametrize(
    "names",
    [
        ["anna/0001_02.jpg", "anna/hall_1.jpg"],
        ["anna/0001_02.jpg", "bert/0002_01.jpg"],
        ["anna/hall_1.jpg"],
        ["list.txt"],
    ],
)
def test_photos_are_not_taken_for_cuhk03(names: list[str]) -> None:
    assert not cuhk03.fits(names)


def test_cuhk03_with_both_boxes_is_refused(tmp_path: Path) -> None:
    names = [f"{boxes}/0033_06.jpg" for boxes in ("detected", "labeled")]
    config = new_config(tmp_path / "c.mat", ["1_034_2_07"], train=[1], query=[1], gallery=[1])
    message = (
        r"same image twice, detected/0033_06\.jpg and labeled/0033_06\.jpg: name the folder of"
    )
    for images in ("detected", "labeled"):
        with pytest.raises(ValueError, match=message):
            cuhk03.read(
                written(tmp_path / "images", names),
                images=images,
                protocol="new",
                config=config,
                published=False,
            )


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
    monkeypatch.setattr(sys, "argv", ["pack", "cuhk03-labeled.128x64"])
    pack.main()
    run = Run("cuhk03-labeled", "base", "quick", seed=4)
    run.folder.mkdir(parents=True)
    torch.manual_seed(0)
    network = Network(5, NetworkOptions(backbone="resnet18", weights="none"))
    networks.save(network, run.folder, dataset=run.dataset, height=64, width=32)
    record = {**RECORD, "environment": {"torch": "2.99.0", "device": "CPU"}}
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


@pytest.mark.slow
def test_the_classic_protocol_through_the_pipeline(
    classic: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_parquet(classic.prepared / "table.parquet")
    assert np.load(classic.prepared / "128x64.npy").shape == (24, 128, 64, 3)
    description = json.loads((classic.prepared / "dataset.json").read_text())
    assert description["scoring"] == "single_shot"
    assert description["counts"]["splits"] == 3
    for number in range(3):  # two of each split's five training identities
        out = table[table[f"held_out_{number}"] != ""]
        assert out.person.nunique() == 2
        assert (out[f"split_{number}"] == "train").all()
    # Seed 4 has split 4 modulo 3; its queries are four of person (1, 3) and (3, 1).
    network = networks.load(classic.folder)
    split = split_of_run(table, classic.seed, hold_out=False)
    scores = score(network, classic.prepared, "128x64", split, torch.device("cpu"))
    assert scores.cmc.index.tolist() == np.flatnonzero(table.split_1 == "query").tolist()
    assert len(scores.cmc) == 2
    assert scores.without_match == 0
    alone = (split == "gallery") & (table.person == table.person[scores.cmc.index[0]])
    rest = score(network, classic.prepared, "128x64", split.mask(alone, ""), torch.device("cpu"))
    assert rest.without_match == 1
    assert rest.cmc.index.tolist() == scores.cmc.index.tolist()[1:]
    assert scores.means.empty
    assert (scores.cmc[2] == 1).all()  # of two identities

    sent: list[tuple[Run, bool]] = []

    def sync_run(run: Run) -> None:
        sent.append((run, Evaluation(classic, classic.dataset).scores.exists()))
        raise ConnectionError("MLflow is away")

    monkeypatch.setattr(training, "connect", lambda: None)
    monkeypatch.setattr(training, "sync_run", sync_run)
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
