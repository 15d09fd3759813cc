"""Files of features, and the command that writes them."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import noise, written
from tiny_models import Outcome, tiny_model

import ianet
from ianet import feature_files, feature_table
from ianet.calibration import calibrate
from ianet.evaluation import evaluate
from ianet.feature_files import (
    FeatureFile,
    is_feature_file,
    read_features,
    refuse_mixed,
    write_features,
)
from ianet.feature_table import FeatureTable, Identity
from ianet.pictures import EXPECTED
from ianet.searching import search

MODEL = Identity("tiny", "ab" * 32)
SUFFIXES = [".parquet", ".npz", ".csv"]


def table(
    count: int = 5, size: int = 3, first: int = 0, model: Identity = MODEL, flip: bool = False
) -> FeatureTable:
    generator = np.random.default_rng(first)
    names = [f'{number}, "ü".jpg' for number in range(first, first + count)]
    persons = ["007", "NA", "", "7", "anna"] * (count // 5 + 1)
    features = generator.standard_normal((count, size)).astype(np.float32) * 1e-3
    cameras = ["", "1", "x"][:1] * count
    return FeatureTable(features, names, persons[:count], cameras, model, flip=flip)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    parts = [table(), table(4, first=5), table(0)]
    path = tmp_path / "new" / f"features{suffix}"
    assert write_features(path, parts) == 9
    file, read = FeatureFile(path), read_features(path)
    assert (len(file), file.size, file.model) == (9, 3, MODEL)
    assert np.array_equal(read.features, np.concatenate([part.features for part in parts]))
    assert read.features.dtype == np.float32
    assert read.paths == parts[0].paths + parts[1].paths
    assert read.persons == parts[0].persons + parts[1].persons
    assert read.cameras == [""] * 9
    assert read.model == MODEL
    assert file.labels().equals(read.labels())
    assert file.labels().person.tolist() == read.persons


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("flip", [True, False])
def test_a_file_says_whether_pictures_were_mirrored(
    tmp_path: Path, suffix: str, flip: bool
) -> None:
    path = tmp_path / f"features{suffix}"
    write_features(path, [table(flip=flip), table(4, first=5, flip=flip)])
    assert FeatureFile(path).flip is flip
    assert [block.flip for block in FeatureFile(path).blocks()] == [flip]
    assert read_features(path).flip is flip


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_before_holds_no_mirrored_pictures(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"features{suffix}"
    write_features(path, [table(flip=True)])
    if suffix == ".parquet":
        content = pq.read_table(path)
        model = {feature_files.MODEL: content.schema.metadata[feature_files.MODEL]}
        pq.write_table(content.replace_schema_metadata(model), path)
    elif suffix == ".npz":
        arrays = dict(np.load(path))
        del arrays["flip"]
        np.savez(path, **arrays)
    else:
        pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns="flip").to_csv(
            path, index=False
        )
    read = read_features(path)
    assert (read.flip, read.model) == (False, MODEL)
    assert np.array_equal(read.features, table().features)


def test_a_csv_file_with_and_without_mirrored_pictures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.csv"
    write_features(path, [table()])
    path.write_text(path.read_text().replace(",false,", ",true,", 1))
    with pytest.raises(ValueError, match=r"no features of ianet \(it has features with and witho"):
        FeatureFile(path)


NAMES = ["=1+1.jpg", "-a.jpg", "'=a.jpg", "''+a.jpg", "@a.jpg", "'a.jpg", "a=b.jpg", "-1", "'", ""]


def test_names_like_formulas_are_text_in_a_csv_file(tmp_path: Path) -> None:
    path, model = tmp_path / "features.csv", Identity("=model", "ab")
    features = np.ones((len(NAMES), 2), np.float32)
    write_features(path, [FeatureTable(features, NAMES, NAMES, NAMES, model)])
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    for column in ("path", "person", "camera"):
        assert cells[column].tolist() == [
            *("'=1+1.jpg", "'-a.jpg", "''=a.jpg", f"'{NAMES[3]}", "'@a.jpg"),
            *("'a.jpg", "a=b.jpg", "-1", "'", ""),
        ]
    assert set(cells.model) == {"'=model sha256:ab"}
    read = read_features(path)
    assert (read.paths, read.persons, read.cameras) == (NAMES, NAMES, NAMES)
    assert read.model == model


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_read_in_blocks(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (feature_files, feature_table):
        monkeypatch.setattr(module, "BLOCK", 4)
    path = tmp_path / f"features{suffix}"
    write_features(path, [table(3), table(3, first=3), table(1, first=6)])
    blocks = list(FeatureFile(path).blocks())
    assert max(map(len, blocks)) <= 4
    assert [name for block in blocks for name in block.paths] == [
        f'{number}, "ü".jpg' for number in range(7)
    ]
    if suffix == ".parquet":
        assert pq.ParquetFile(path).metadata.num_row_groups == 2


def test_a_parquet_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "features.parquet"
    write_features(path, (table(4096, 64, first=4096 * number) for number in range(20)))
    assert path.stat().st_size > 20 * 2**20
    before = pa.total_allocated_bytes()
    file = FeatureFile(path)
    most = max(pa.total_allocated_bytes() for _ in file.blocks())
    assert most - before < 8 * 2**20


def test_other_programs_read_the_files(tmp_path: Path) -> None:
    values = table()
    for suffix in SUFFIXES:
        write_features(tmp_path / f"features{suffix}", [values])
    frame = pd.read_parquet(tmp_path / "features.parquet")
    assert np.array_equal(np.stack(frame.feature.to_list()), values.features)
    assert frame.person[2] is None or pd.isna(frame.person[2])
    with np.load(tmp_path / "features.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["feature"], values.features)
        assert str(arrays["model"]) == f"tiny sha256:{'ab' * 32}"
    frame = pd.read_csv(tmp_path / "features.csv")
    assert list(frame.columns) == ["path", "person", "camera", "model", "flip", "0", "1", "2"]
    assert np.array_equal(frame[["0", "1", "2"]].to_numpy(np.float32), values.features)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_holds_no_features_is_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"features{suffix}"
    with pytest.raises(FileNotFoundError, match="does not exist: `ianet embed` makes such a file"):
        FeatureFile(path)
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is no regular file: `ianet embed` makes such a file"):
        FeatureFile(path)
    path.unlink()
    write_features(path, [table()])
    content = path.read_bytes()
    damages = [content[: len(content) // 2], b"", b"no features\n1\n"]
    if suffix == ".npz":  # a zip of version 9.9, by its central directory
        place = content.index(b"PK\x01\x02") + 6
        damages.append(content[:place] + b"\x63" + content[place + 1 :])
        odd = io.BytesIO()
        with zipfile.ZipFile(odd, "w") as archive:  # an array whose header Python cannot read
            archive.writestr("feature.npy", b"\x93NUMPY\x01\x00\x05\x00((((\n")
        damages.append(odd.getvalue())
    for damaged in damages:
        if suffix == ".csv" and damaged.startswith(b"path"):
            continue  # a CSV file that is cut is shorter
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"holds no features of ianet \(.*\): `ian") as error:
            FeatureFile(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_features_that_are_not_finite_are_refused(tmp_path: Path, suffix: str) -> None:
    values = table()
    values.features[3, 1] = np.nan
    path = tmp_path / f"features{suffix}"
    write_features(path, [values])
    with pytest.raises(ValueError, match=r'the feature of row 4 \(3, "ü"\.jpg\) holds NaN or inf'):
        read_features(path)


def test_a_csv_file_of_two_models_or_with_a_gap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "features.csv"
    write_features(path, [table()])
    text = path.read_text()
    path.write_text(text.replace("sha256:ab", "sha256:cd", 1))
    with pytest.raises(ValueError, match=r"holds no features of ianet \(it has 2 models\)"):
        FeatureFile(path)
    path.write_text(text[: text.rindex(",")])
    with pytest.raises(ValueError, match=r"holds no features of ianet \(could not convert"):
        read_features(path)


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_persons_and_cameras_may_be_integers(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"features{suffix}"
    write_features(path, [table()])
    if suffix == ".parquet":
        change_parquet(path, pa.array([0, 1, None, 3, 4]), "person")
    else:
        np.savez(path, **dict(np.load(path)) | {"person": np.arange(5)})
    third = "" if suffix == ".parquet" else "2"
    assert read_features(path).persons == ["0", "1", third, "3", "4"]
    assert FeatureFile(path).labels().person.tolist() == ["0", "1", third, "3", "4"]


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
@pytest.mark.parametrize("values", [np.ones(5), np.full(5, b"a"), np.full((5, 1), "a")])
def test_labels_that_are_no_texts_are_refused(
    tmp_path: Path, suffix: str, values: np.ndarray
) -> None:
    path = tmp_path / f"features{suffix}"
    write_features(path, [table()])
    if suffix == ".parquet":
        change_parquet(path, pa.array(values.tolist()), "person")
    else:
        np.savez(path, **dict(np.load(path)) | {"person": values})
    with pytest.raises(ValueError, match=r"holds no features .* (column|array) person is"):
        FeatureFile(path)


@pytest.mark.parametrize("suffix", [".npz", ".csv"])  # Parquet refuses to write such
def test_features_without_numbers_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"features{suffix}"
    features = np.ones((5, 0), np.float32)
    write_features(path, [replace(table(), features=features)])
    with pytest.raises(ValueError, match=r"\(its features have no number\)"):
        FeatureFile(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_without_pictures_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"features{suffix}"
    write_features(path, [table(0)])
    with pytest.raises(ValueError, match="holds no features of ianet"):
        FeatureFile(path)


def test_features_of_two_models_are_not_mixed() -> None:
    refuse_mixed(MODEL, Identity("renamed", MODEL.digest), "gallery.npz")
    with pytest.raises(
        ValueError, match=r"^gallery\.npz holds features of other sha256:cd, and not "
    ):
        refuse_mixed(MODEL, Identity("other", "cd"), "gallery.npz")


@pytest.mark.parametrize(
    "use",
    [
        lambda query, gallery: search(query, gallery, 1),
        lambda query, gallery: evaluate(query, gallery, cameras="ignore"),
        lambda query, gallery: calibrate(query, gallery, dataset="set", cameras="ignore"),
    ],
    ids=["search", "evaluate", "calibrate"],
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model": Identity("other", "cd")},
            "^query has features of tiny .*, and gallery of other sha256:cd: features of",
        ),
        ({"flip": True}, "query and gallery are features with and without flip: embed them alike"),
    ],
    ids=["model", "flip"],
)
def test_features_that_were_not_made_alike_are_not_compared(
    use: Callable[[FeatureTable, FeatureTable], object], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        use(table(), replace(table(), **change))


@pytest.mark.parametrize("offset", [0.3, 0.6])
def test_a_byte_that_changed_in_parquet_is_found(tmp_path: Path, offset: float) -> None:
    """Without checksums, a feature with another number would be read."""
    path = tmp_path / "features.parquet"
    write_features(path, [table(64, 512)])
    content = bytearray(path.read_bytes())
    content[int(offset * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"features\.parquet cannot be read \(.*: embed the pict"):
        read_features(path)


@pytest.mark.parametrize(("text", "flip"), [("false", False), ("True", True)])
def test_flip_as_a_text_is_read(tmp_path: Path, text: str, flip: bool) -> None:
    path = tmp_path / "features.npz"
    write_features(path, [table()])
    np.savez(path, **dict(np.load(path)) | {"flip": np.array(text)})
    assert read_features(path).flip is flip
    np.savez(path, **dict(np.load(path)) | {"flip": np.array("maybe")})
    with pytest.raises(ValueError, match="holds no features of ianet"):
        read_features(path)


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    def tables():  # type: ignore[no-untyped-def]
        yield table()
        raise ValueError("a picture is bad")

    for suffix in SUFFIXES:
        with pytest.raises(ValueError, match="a picture is bad"):
            write_features(tmp_path / f"features{suffix}", tables())
    with pytest.raises(ValueError, match=r"features\.txt does not end in \.parquet, \.npz, \.csv"):
        write_features(tmp_path / "features.txt", tables())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_the_command_writes_what_embed_returns(
    model: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    photos = written(tmp_path / "photos", ["0001_c1s1_1.jpg", "0002_c2s1_1.jpg", "x.jpg"])
    output = tmp_path / "features.parquet"
    outcome = run("embed", model, photos, "-o", output, "--flip", "--batch", "2")
    assert outcome == (0, f"{output}: 1280 numbers for each of 3 pictures\n", "")
    read, expected = read_features(output), ianet.load(model).embed(photos, flip=True)
    assert np.abs(read.features - expected.features).max() <= 1e-6
    assert (read.paths, read.persons) == (expected.paths, ["0001", "0002", ""])
    assert read.model == expected.model
    assert (read.flip, expected.flip) == (True, True)
    run("embed", model, photos, "-o", output)
    assert not read_features(output).flip
    outcome = run("embed", model, photos / "x.jpg", "-o", output)
    assert outcome.output == f"{output}: 1280 numbers for each of 1 picture\n"


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_a_file_of_features_is_no_picture(
    suffix: str, model: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    source = tmp_path / f"features{suffix}"
    write_features(source, [table()])
    outcome = run("embed", model, source, "-o", tmp_path / "again.csv")
    assert (outcome.code, outcome.output) == (2, "")
    assert outcome.errors == (
        f"error: {source} holds features by its suffix, and no picture: give {EXPECTED}\n"
    )


def test_the_command_names_what_it_skips(
    model: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    photos = written(tmp_path / "photos", ["a.jpg", "b.jpg"])
    (photos / "b.jpg").write_bytes(noise(1)[:400])
    output = tmp_path / "features.npz"
    outcome = run("embed", model, photos, "-o", output)
    assert (outcome.code, outcome.output) == (2, "")
    assert outcome.errors.startswith(f"error: {photos}/b.jpg cannot be decoded (")
    assert outcome.errors.count("\n") == 1
    assert not output.exists()
    outcome = run("embed", model, photos, "-o", output, "--skip-bad", "--json")
    assert outcome.errors.startswith(f"skipped: {photos}/b.jpg (")
    answer = json.loads(outcome.output)
    assert (answer["pictures"], answer["size"]) == (1, 1280)
    [(path, reason)] = answer["skipped"].items()
    assert outcome.errors.startswith(f"skipped: {path} ({reason})")
    assert answer["flip"] is False
    outcome = run("embed", model, photos / "b.jpg", "-o", tmp_path / "none.csv", "--skip-bad")
    assert outcome.code == 2
    assert outcome.errors.endswith("error: not one of 1 pictures can be decoded\n")
    assert not (tmp_path / "none.csv").exists()


def change_parquet(
    path: Path, values: pa.Array | None = None, name: str = "feature", without: str = ""
) -> None:
    content = pq.read_table(path)
    if values is not None:
        place = content.schema.get_field_index(name)
        content = content.set_column(place, name, values)
    pq.write_table(content.drop([without] if without else []), path)


def lists(values: np.ndarray | list[str], size: int = 3) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values), size)


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_features_of_other_numbers_are_read_as_float32(
    tmp_path: Path, suffix: str, kind: type[np.number]
) -> None:
    path = tmp_path / f"features{suffix}"
    write_features(path, [table()])
    values = (np.arange(15).reshape(5, 3) * 1.5).astype(kind)
    if suffix == ".parquet":
        change_parquet(path, lists(values.ravel()))
    else:
        np.savez(path, **dict(np.load(path)) | {"feature": values})
    read = read_features(path)
    assert read.features.dtype == np.float32
    assert np.array_equal(read.features, values.astype(np.float32))


@pytest.mark.parametrize(
    ("values", "kind"),
    [(np.ones((5, 3), complex), "complex128"), (np.full((5, 3), "1"), "<U1"),
     (np.ones((5, 3), bool), "bool")],
)  # fmt: skip
def test_features_that_are_no_numbers_are_refused(
    tmp_path: Path, values: np.ndarray, kind: str
) -> None:
    path = tmp_path / "features.npz"
    write_features(path, [table()])
    np.savez(path, **dict(np.load(path)) | {"feature": values})
    with pytest.raises(
        ValueError, match=rf"npz holds no .* \(its features are {kind}, and no real"
    ):
        FeatureFile(path)
    if kind != "complex128":  # which Parquet has not
        path = tmp_path / "features.parquet"
        write_features(path, [table()])
        change_parquet(path, lists(values.ravel().tolist()))
        with pytest.raises(
            ValueError, match=r"parquet holds no .* \(its features are (string|bool)"
        ):
            FeatureFile(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.filterwarnings("error")
def test_features_that_are_too_large_are_refused(tmp_path: Path, suffix: str) -> None:
    values = table()
    values.features[:] *= 1e21  # of a length of some 1e18, whose square is below 3e38
    path = tmp_path / f"features{suffix}"
    write_features(path, [values])
    assert np.isfinite(read_features(path).features).all()
    values.features[3] *= 1e3
    write_features(path, [values])
    with pytest.raises(
        ValueError, match=r"of row 4 \(3, .* infinite values, or too large ones: emb"
    ):
        read_features(path)


@pytest.mark.filterwarnings("error")
def test_a_number_beyond_float32_is_too_large(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        path, numbers = tmp_path / f"features{suffix}", np.full((5, 3), 1e300)
        write_features(path, [table()])
        if suffix == ".parquet":
            change_parquet(path, lists(numbers.ravel()))
        elif suffix == ".npz":
            np.savez(path, **dict(np.load(path)) | {"feature": numbers})
        else:
            pd.read_csv(path, dtype=str, keep_default_na=False).assign(**{"1": 1e300}).to_csv(
                path, index=False
            )
        with pytest.raises(ValueError, match=r"of row 1 \(0, .* infinite values, or too large"):
            read_features(path)


@pytest.mark.parametrize("name", ["path", "person", "camera", "feature"])
def test_a_parquet_file_without_a_column_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "features.parquet"
    write_features(path, [table()])
    change_parquet(path, without=name)
    with pytest.raises(ValueError, match=rf"parquet holds no features of ianet \(.*{name}.*\): `i"):
        FeatureFile(path)


def test_a_damaged_part_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "features.parquet"
    write_features(path, [table()])
    content = path.read_bytes()
    length = int.from_bytes(content[-8:-4], "little")
    message = (
        r"^[^\n]*features\.parquet (cannot be read|holds no features of ianet) \([^\n]+\): [^\n]+$"
    )
    for start in (4, len(content) - 8 - length):  # the first page, the footer
        damaged = bytearray(content)
        damaged[start : start + 60] = b"\xff" * 60
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            FeatureFile(path).labels()
        with pytest.raises(ValueError, match=message):
            read_features(path)


@pytest.mark.parametrize("shape", [(10**12, 512), (10**30, 512), (-5, 3)])
def test_a_shape_that_no_memory_holds_is_one_line(tmp_path: Path, shape: tuple[int, int]) -> None:
    path = tmp_path / "features.npz"
    write_features(path, [table()])
    arrays = dict(np.load(path))
    del arrays["feature"]
    np.savez(path, **arrays)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with zipfile.ZipFile(path, "a") as archive, archive.open("feature.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=r"features\.npz (cannot be read|holds no) ") as error:
        FeatureFile(path)
    assert "\n" not in str(error.value)


def test_the_columns_of_a_csv_file_may_have_any_order(tmp_path: Path) -> None:
    path, values = tmp_path / "features.csv", table(size=12)
    write_features(path, [values])
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame[frame.columns[::-1]].to_csv(path, index=False)
    read = read_features(path)
    assert np.array_equal(read.features, values.features)
    assert read.paths == values.paths
    for other, number, named in (
        (frame.drop(columns="3"), 11, "11"),
        (frame.assign(note="7"), 13, "note"),
        (frame.rename(columns={"3": "X3"}), 12, "X3"),
    ):
        other.to_csv(path, index=False)
        message = (
            rf"\(its {number} columns of numbers are not 0 to {number - 1}, as one is '{named}'"
        )
        with pytest.raises(ValueError, match=message):
            FeatureFile(path)


def test_a_csv_file_with_quotes_holds_features(tmp_path: Path) -> None:
    path, values = tmp_path / "features.csv", table()
    write_features(path, [values])
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    frame.to_csv(path, index=False, quoting=csv.QUOTE_ALL)
    assert path.read_text().startswith('"path","person","camera","model"')
    assert is_feature_file(path)
    assert np.array_equal(read_features(path).features, values.features)
    path.write_text('"path","person"\n"a.jpg","anna"\n')
    assert not is_feature_file(path)


@pytest.mark.parametrize("name", ["folder.csv", "file/f.csv", "list.csv"])
def test_a_wrong_output_is_refused_before_the_work(
    model: Path,
    tmp_path: Path,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(ianet.model.Model, "embed_batches", None)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").touch()
    listed = tmp_path / "list.csv"
    listed.write_text("path\na.jpg\n")
    output = tmp_path / name
    reason = {
        "folder.csv": "is a folder: name a file",
        "file/f.csv": f"cannot be written, as {tmp_path}/file is no folder: name another one",
        "list.csv": f"would overwrite {listed}: name another file",
    }[name]
    outcome = run("embed", model, listed, "-o", output)
    assert outcome == (2, "", f"error: {output} {reason}\n")
    assert listed.read_text() == "path\na.jpg\n"
