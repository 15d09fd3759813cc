"""The features that a model gives, of pictures of every kind."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import archive_folder, noise
from PIL import Image
from tiny_models import NAMES, SIZE, Outcome, tiny_model, write_photos

import ianet
from ianet import images
from ianet.features import extract
from ianet.model import Model
from ianet.packing import pack
from ianet.pictures import find_pictures, open_picture

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return ianet.load(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


def expected(model: Model, paths: list[Path], target: Path) -> np.ndarray:
    """What the pipeline computes: packed images, then features."""
    for _ in pack(open_picture, [str(path) for path in paths], SIZE, target):
        pass
    return extract(model.network, images.load(target), device=CPU).numpy()


def test_features_are_those_of_the_pipeline(model: Model, photos: Path, tmp_path: Path) -> None:
    table = model.embed(photos, batch=2)
    paths = sorted(path for path in photos.rglob("*") if path.is_file())
    assert table.paths == [str(path) for path in paths]
    assert table.features.shape == (5, 1280)
    assert table.features.dtype == np.float32
    features = expected(model, paths, tmp_path / "packed.npy")
    assert np.abs(table.features - features).max() <= 1e-6 * np.abs(features).max()
    assert np.abs(features).max() > 0.01


def test_every_kind_of_image_gives_the_same_features(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    path = photos / "c/large.jpg"
    picture = Image.open(path)
    array = np.asarray(picture)
    listed = tmp_path / "list.txt"
    listed.write_text(f"{os.path.relpath(path, tmp_path)}\n\n{path}\n")
    kinds: list[Any] = [
        str(path),
        path.read_bytes(),
        picture,
        array,
        torch.from_numpy(array.copy()),
        np.stack([array, array]),
        torch.from_numpy(np.stack([array])),
        listed,
    ]
    table = model.embed(kinds)
    assert len(table) == 10
    assert np.ptp(table.features, axis=0).max() <= 1e-6
    assert table.paths[:2] == [str(path), "image 1"]
    assert table.paths[5:8] == ["image 5", "image 6", "image 7"]


def test_a_series_or_an_array_of_paths_is_several_paths(photos: Path) -> None:
    paths = [str(photos / name) for name in NAMES]
    for several in (pd.Series(paths), pd.Series(paths, dtype=object), np.array(paths)):
        pictures = find_pictures(several)
        assert [picture.path for picture in pictures] == paths
        assert [picture.person for picture in pictures] == ["0001", "0001", "0002"]
    contents = np.array([Path(path).read_bytes() for path in paths], dtype=object)
    assert [picture.open().size for picture in find_pictures(contents)] == [
        picture.open().size for picture in pictures
    ]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_is_a_folder(model: Model, photos: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    archive = archive_folder(tmp_path / "photos", kind)
    table = model.embed(archive)
    assert table.paths == [
        path.replace(str(photos), f"{archive}/photos") for path in model.embed(photos).paths
    ]
    assert np.array_equal(table.features, model.embed(photos).features)
    assert np.array_equal(
        np.asarray(open_picture(table.paths[-1])),
        np.asarray(open_picture(str(photos / "c/large.jpg"))),
    )


def test_flip_averages_with_the_mirrored_picture(model: Model, photos: Path) -> None:
    array = np.asarray(Image.open(photos / "c/large.jpg").resize(SIZE[::-1]))
    both = model.embed([array, array[:, ::-1]]).features
    flipped = model.embed(array, flip=True).features
    assert np.abs(flipped - both.mean(axis=0)).max() <= 1e-6
    assert np.abs(both[0] - both[1]).max() > 1e-4


def test_bfloat16_is_near_float32(model: Model, photos: Path) -> None:
    exact = model.embed(photos).features
    reduced = model.embed(photos, precision="bfloat16").features
    error = np.abs(reduced - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.3
    assert reduced.dtype == np.float32


def test_bad_pictures_are_named_and_may_be_skipped(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    good, bad, missing = photos / "c/grey.png", tmp_path / "bad.jpg", tmp_path / "none.jpg"
    bad.write_bytes(noise(1)[:500])
    listed = tmp_path / "list.txt"
    listed.write_text(f"{good}\n{bad}\n{missing}\n")
    mixed = [listed, np.zeros((4, 4, 3), np.float32), np.zeros((3, 8, 8), np.uint8), good]
    with pytest.raises(ValueError, match=r"bad\.jpg cannot be decoded \(.+\): replace the picture"):
        model.embed(mixed)
    for batch in (1, 2, 64):
        table = model.embed(mixed, skip_bad=True, batch=batch)
        assert table.paths == [str(good), str(good)]
        assert list(table.skipped) == [str(bad), str(missing), "image 1", "image 2"]
        assert table.skipped[str(missing)] == "No such file or directory"
        assert table.skipped["image 1"] == (
            "it is float32 of shape (4, 4, 3), not uint8 from 0 to 255 of shape (height, width, 3) "
            "in RGB"
        )
        assert "uint8 of shape (3, 8, 8)" in table.skipped["image 2"]
        assert np.abs(table.features - model.embed(good).features).max() <= 1e-6
    assert model.embed(bad, skip_bad=True).features.shape == (0, 1280)


@pytest.fixture
def pipes(tmp_path: Path, make_pipe: Callable[[Path], None]) -> Path:
    """Named pipes, into which nobody writes, under names of pictures, lists and archives."""
    for name in ("photos/pipe.jpg", "pipe.png", "pipe.txt", "pipe.csv", "pipe.zip", "pipe.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_pipe(tmp_path / name)
    (tmp_path / "list.txt").write_text("pipe.png\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "pipe"),
    [
        ("pipe.png", "pipe.png"),
        ("photos", "photos/pipe.jpg"),
        ("list.txt", "pipe.png"),
        ("pipe.parquet", "pipe.parquet"),
    ],
)
def test_a_pipe_is_no_picture(model: Model, pipes: Path, name: str, pipe: str) -> None:
    reason = f"{pipes / pipe} is no regular file: put the file itself there"
    with pytest.raises(ValueError, match=re.escape(f"{pipes / pipe} cannot be decoded ({reason})")):
        model.embed(pipes / name)
    assert model.embed(pipes / name, skip_bad=True).skipped == {str(pipes / pipe): reason}


@pytest.mark.parametrize("name", ["pipe.txt", "pipe.csv", "pipe.zip"])
def test_a_pipe_is_no_list_and_no_archive(model: Model, pipes: Path, name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{pipes / name} is no regular file: put the")):
        model.embed(pipes / name, skip_bad=True)


@pytest.mark.parametrize("command", ["embed", "search", "compare", "attention"])
@pytest.mark.parametrize("name", ["pipe.png", "pipe.csv", "pipe.parquet"])
def test_no_command_waits_for_a_pipe(
    folder: Path, pipes: Path, command: str, name: str, run: Callable[..., Outcome]
) -> None:
    pipe, output = pipes / name, pipes / "output"
    options = {
        "embed": [pipe, "-o", f"{output}.npz"],
        "search": [pipe, pipe, "-o", f"{output}.csv"],
        "compare": [pipe, pipe],
        "attention": [pipe, "--point", "0.5,0.5", "-o", f"{output}.png"],
    }[command]
    outcome = run(command, folder, *options)
    assert (outcome.code, outcome.output) == (2, "")
    assert f"{pipe} is no regular file: put the file itself there" in outcome.errors
    assert outcome.errors.count("\n") == 1


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ("nowhere", FileNotFoundError, "nowhere does not exist. Expected: a picture, a folder"),
        ([], ValueError, "there is no picture: give a picture, a folder or"),
        (7, TypeError, "an image is of type int: give a path, bytes"),
    ],
)
def test_no_pictures(model: Model, images: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        model.embed(images)


def test_wrong_options(model: Model, photos: Path) -> None:
    with pytest.raises(ValueError, match="batch is 0: it must be 1 at least"):
        model.embed(photos, batch=0)
    with pytest.raises(ValueError, match=r"device 'gpu' cannot be used \(.+\): take auto or cpu"):
        model.embed(photos, device="gpu")
    for name in ("meta", "hpu"):
        with pytest.raises(
            ValueError, match=rf"^device '{name}' cannot be used \(.+\): take"
        ) as error:
            model.embed(photos, device=name)
        assert "\n" not in str(error.value)


def test_a_gpu_without_memory_for_a_batch_is_told(
    folder: Path,
    photos: Path,
    tmp_path: Path,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run_out(*arguments: object, **options: object) -> Iterator[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        yield

    monkeypatch.setattr("ianet.model.extract_batches", run_out)
    outcome = run("embed", folder, photos, "-o", tmp_path / "f.csv", "--batch", "512")
    message = "error: the GPU has no memory for 512 pictures at a time: lower --batch\n"
    assert (outcome.code, outcome.errors) == (2, message)


def test_persons_and_cameras(model: Model, photos: Path, tmp_path: Path) -> None:
    table = model.embed(photos / "a")
    assert (table.persons, table.cameras) == (["0001", "0001"], ["1", "2"])
    table = model.embed(photos, labels="folders")
    assert table.persons == ["a", "a", "b", "c", "c"]
    assert table.cameras == ["0001", "0001", "0002", "", ""]
    assert model.embed(photos / "b", labels="none").persons == [""]
    listed = tmp_path / "list.csv"
    listed.write_text(f"person,path,camera\n007, {photos}/b/0002_c1s1_1.jpg,hall\n")
    table = model.embed(listed)
    assert (table.persons, table.cameras) == (["007"], ["hall"])


def test_a_folder_is_a_person_only_below_what_is_given(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "b", tmp_path / "anna")
    listed = tmp_path / "list.txt"
    listed.write_text("anna/0002_c1s1_1.jpg\n")
    archive = archive_folder(tmp_path / "anna", "zip")
    file = tmp_path / "anna/0002_c1s1_1.jpg"
    for source, person in (
        *((tmp_path, "anna"), (listed, "anna"), (archive, "anna")),
        *((tmp_path / "anna", ""), (file, ""), (os.path.relpath(file), "")),
    ):
        picture, *_ = find_pictures(source, labels="folders")
        assert (picture.person, picture.camera) == (person, "0002"), source
