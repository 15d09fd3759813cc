"""From a picture to the file of its scores by value: rows out of step between fail a test.

People are plain colours, so that a mean colour is the identity. Numbers of images differ between
people, so that reversed rows are other people's rows.
"""

from __future__ import annotations

import colorsys
import io
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import archive_folder
from numpy.typing import NDArray
from PIL import Image
from test_cuhk03 import Mat, new_config
from torch import nn

from benchmarks.mutants import MUTANTS, Mutant
from ianet.options import Cameras
from ianet.readers import readers
from pipeline.config.settings import load
from pipeline.data.splits import split_of_run
from pipeline.plan.runs import Run
from pipeline.report import ranked_lists
from pipeline.scoring import score
from pipeline.stages import pack, prepare

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 16, 8
SIZE = f"{HEIGHT}x{WIDTH}"
DATASET = "people"
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

Pixels = NDArray[np.uint8]


class Shot(NamedTuple):
    """A picture that a set is made of.

    Attributes:
        number: of the picture in its set. Files are named by it, in another order than that of
            persons.
    """

    split: str
    person: int
    camera: int
    number: int


# Split, person, and the cameras of the person's images.
VIEWS = [
    ("train", 2, [1, 2, 2]),
    ("train", 5, [1, 1, 2, 2, 2]),
    ("train", 7, [1, 2]),
    ("train", 8, [1, 2, 2, 2]),
    ("query", 3, [1, 2]),
    ("query", 6, [1]),
    ("query", 9, [2]),
    ("gallery", 3, [1, 1, 2, 2]),
    ("gallery", 6, [1, 2, 2]),
    ("gallery", 9, [1, 2]),
]


def shots() -> list[Shot]:
    labels = [(split, person, camera) for split, person, cameras in VIEWS for camera in cameras]
    numbers = np.random.default_rng(0).permutation(len(labels)).tolist()
    return [Shot(*label, number) for label, number in zip(labels, numbers, strict=True)]


def colour(person: int) -> NDArray[np.float64]:
    """(3,), a hue of the person's own."""
    return 255 * np.array(colorsys.hsv_to_rgb(0.37 * person % 1, 0.7, 0.8))


def paint(person: int, number: int, noise: float, size: tuple[int, int] = (21, 10)) -> Pixels:
    """(H, W, 3): the person's colour under noise that no other picture has."""
    draw = np.random.default_rng(number)
    return (colour(person) + draw.normal(0, noise, (*size, 3))).clip(0, 255).astype(np.uint8)


def to_jpeg(pixels: Pixels) -> bytes:
    jpeg = io.BytesIO()
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=95)
    return jpeg.getvalue()


def decode(jpeg: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def resize(pixels: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


class Entry(NamedTuple):
    """What a picture is in the prepared table and in the packed array."""

    person: int
    camera: int
    split: str
    pixels: Pixels


class Source(NamedTuple):
    """A set in a published layout.

    Attributes:
        path: of the folder, archive or file.
        reader, options: as in params.yaml.
        pictures: what is expected of each, by its path in the folder.
        seed: of the run whose splits are expected.
        cameras: as in params.yaml.
    """

    path: Path
    reader: str
    options: dict[str, Any]
    pictures: dict[str, Entry]
    seed: int = 0
    cameras: Cameras = "respect"


def write_images(
    root: Path, files: dict[str, tuple[Shot, int, int]], noise: float = 6
) -> dict[str, Entry]:
    """Write a picture for each path; the numbers are those of person and camera in the table."""
    pictures = {}
    for path, (shot, person, camera) in files.items():
        jpeg = to_jpeg(paint(shot.person, shot.number, noise))
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(jpeg)
        pictures[path] = Entry(person, camera, shot.split, decode(jpeg))
    return pictures


BOXES = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def market1501(root: Path, noise: float = 6) -> Source:
    """With a distractor, two names in .jpg.jpg, and junk that looks like a query's person."""
    gallery = [*shots(), Shot("gallery", 0, 1, 100), Shot("gallery", 0, 2, 101)]
    pictures = write_images(
        root,
        {
            f"{BOXES[shot.split]}/{shot.person:04d}_c{shot.camera}s1_{shot.number:06d}_01.jpg"
            + (".jpg" if shot.number < 2 else ""): (shot, shot.person, shot.camera)
            for shot in gallery
        },
        noise,
    )
    for number in range(102, 106):
        name = f"-1_c{1 + number % 2}s1_{number:06d}_01.jpg"
        (root / BOXES["gallery"] / name).write_bytes(to_jpeg(paint(3, number, noise)))
    return Source(root, "market1501", {}, pictures)


def dukemtmc(root: Path) -> Source:
    files = {
        f"{BOXES[shot.split]}/{shot.person:04d}_c{shot.camera}_f{shot.number:07d}.jpg": (
            shot,
            shot.person,
            shot.camera,
        )
        for shot in shots()
    }
    return Source(root, "dukemtmc", {}, write_images(root, files))


def msmt17(root: Path, *, train: str, test: str) -> Source:
    """Numbers of test identities begin anew, and the lists are in no order."""
    files, lists = {}, dict.fromkeys(("train", "val", "query", "gallery"), "")
    for shot in sorted(shots(), key=lambda shot: shot.number):
        folder = train if shot.split == "train" else test
        name = f"{shot.person:04d}/{shot.person:04d}_{shot.number:03d}_{shot.camera:02d}_0303noon_0_1.jpg"  # fmt: skip  # noqa: E501
        person = shot.person if shot.split == "train" else 1041 + shot.person
        files[f"{folder}/{name}"] = (shot, person, shot.camera)
        is_val = shot.split == "train" and shot.camera == 1
        lists["val" if is_val else shot.split] += f"{name} {shot.person}\n"
    pictures = write_images(root, files)
    for name, lines in lists.items():
        (root / f"list_{name}.txt").write_text(lines)
    return Source(root, "msmt17", {"training": "train+val"}, pictures)


# Text is numbered from 1 in its own order.
NAMES = {2: ("zoe", 7), 3: ("dan", 3), 5: ("ann", 1), 6: ("eve", 4), 7: ("bo", 2), 8: ("roy", 6),
         9: ("jim", 5)}  # fmt: skip
PLACES = {1: ("hall", 2), 2: ("door", 1)}


def folders(root: Path) -> Source:
    files = {
        f"{shot.split}/{NAMES[shot.person][0]}/{PLACES[shot.camera][0]}_{shot.number}.jpg": (
            shot,
            NAMES[shot.person][1],
            PLACES[shot.camera][1],
        )
        for shot in shots()
    }
    return Source(root, "folders", {}, write_images(root, files))


def listed(root: Path, *, kind: str) -> Source:
    files = {
        f"images/{shot.number}.jpg": (shot, NAMES[shot.person][1], PLACES[shot.camera][1])
        for shot in shots()
    }
    pictures = write_images(root, files)
    table = pd.DataFrame(
        [
            (path, NAMES[shot.person][0], PLACES[shot.camera][0], shot.split)
            for path, (shot, *_) in files.items()
        ],
        columns=["path", "person", "camera", "split"],
    )
    (root / f"people.{kind}").write_bytes(
        table.to_csv(index=False).encode() if kind == "csv" else table.to_parquet()
    )
    return Source(root, "listed", {}, pictures)


# CUHK03: two pairs of cameras. Person -> pair, row of the pair, and number through the pairs, of
# which the first has 843 people.
CELLS = {2: (1, 1, 1), 3: (1, 2, 2), 5: (1, 3, 3), 6: (1, 4, 4), 7: (2, 1, 844), 8: (2, 2, 845),
         9: (2, 3, 846)}  # fmt: skip
TESTSETS = [[2, 5, 7], [3, 6, 9], [7, 8, 3]]


def columns() -> dict[Shot, int]:
    """The cell of each shot in its person's row, from 1; camera 2 begins at 6."""
    counts: dict[tuple[int, int], int] = {}
    places = {}
    for shot in shots():
        key = (shot.person, shot.camera)
        counts[key] = counts.get(key, 0) + 1
        places[shot] = 5 * (shot.camera - 1) + counts[key]
    return places


def write_mat(path: Path) -> dict[str, tuple[Shot, Pixels]]:
    """Write cuhk-03.mat; return the labeled pictures by the names of the new protocol."""
    cells = {(*CELLS[shot.person][:2], column): shot for shot, column in columns().items()}
    pictures: dict[str, dict[tuple[int, ...], Pixels]] = {
        images: {cell: paint(shot.person, shot.number + more, 6) for cell, shot in cells.items()}
        for images, more in (("labeled", 0), ("detected", 50))
    }
    empty = np.zeros((0, 0), np.uint8)
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        mat = Mat(file)
        for images, pixels in pictures.items():
            pairs = []
            for pair in range(1, 6):
                rows = sorted(row for other, row, _ in CELLS.values() if other == pair)
                people = [
                    [mat.array(pixels.get((pair, row, n), empty), "uint8") for n in range(1, 11)]
                    for row in rows
                ]
                pairs.append([mat.nested(mat.cells(people) if rows else np.empty((0, 10), object))])
            mat.variable(images, mat.cells(pairs))
        places = [np.array([CELLS[person][:2] for person in test], float) for test in TESTSETS]
        mat.variable("testsets", mat.cells([[mat.array(place, "double")] for place in places]))
    return {
        f"{pair}_{row:03d}_{shot.camera}_{column:02d}": (shot, pictures["labeled"][cell])
        for cell, shot in cells.items()
        for pair, row, column in [cell]
    }


def cuhk03_classic(root: Path) -> Source:
    """The second of three splits is that of seed 4."""
    pictures = {
        name: Entry(
            CELLS[shot.person][2],
            shot.camera,
            ("query" if shot.camera == 1 else "gallery") if shot.person in TESTSETS[1] else "train",
            pixels,
        )
        for name, (shot, pixels) in write_mat(root / "cuhk-03.mat").items()
    }
    return Source(root, "cuhk03", {"images": "labeled", "protocol": "classic"}, pictures, seed=4)


def new_protocol(root: Path, names: dict[str, Shot]) -> dict[str, Any]:
    """The options, whose file names the images in an order of its own."""
    order = sorted(names, key=lambda name: names[name].number)
    splits = {
        split: [n for n, name in enumerate(order, 1) if names[name].split == split]
        for split in BOXES
    }
    config = new_config(root.with_suffix(".config.mat"), order, **splits)
    return {"images": "labeled", "protocol": "new", "config": str(config)}


def cuhk03_new(root: Path) -> Source:
    files = write_mat(root / "cuhk-03.mat")
    pictures = {
        name: Entry(CELLS[shot.person][2], shot.camera, shot.split, pixels)
        for name, (shot, pixels) in files.items()
    }
    options = new_protocol(root, {name: shot for name, (shot, _) in files.items()})
    return Source(root, "cuhk03", options, pictures)


def cuhk03_images(root: Path) -> Source:
    """Files are named by identity and column, both from 0."""
    files, names = {}, {}
    for shot, column in columns().items():
        pair, row, identity = CELLS[shot.person]
        files[f"{identity - 1:04d}_{column - 1:02d}.jpg"] = (shot, identity, shot.camera)
        names[f"{pair}_{row:03d}_{shot.camera}_{column:02d}"] = shot
    pictures = write_images(root, files)
    return Source(root, "cuhk03", new_protocol(root, names), pictures)


LAYOUTS: dict[str, Callable[[Path], Source]] = {
    "market1501": market1501,
    "dukemtmc": dukemtmc,
    "msmt17-v1": lambda root: msmt17(root, train="train", test="test"),
    "msmt17-v2": lambda root: msmt17(root, train="mask_train_v2", test="mask_test_v2"),
    "folders": folders,
    "listed-csv": lambda root: listed(root, kind="csv"),
    "listed-parquet": lambda root: listed(root, kind="parquet"),
    "cuhk03-images": cuhk03_images,
}  # fmt: skip
MATS = {"cuhk03-classic": cuhk03_classic, "cuhk03-new": cuhk03_new}
"""HDF5 is read from a folder only."""

CASES = [
    *itertools.product((*LAYOUTS, *MATS), ("folder",)),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            *itertools.product(LAYOUTS, ("zip",)),
            *(("market1501", kind) for kind in ("tar", "tar.gz")),
        )
    ),
]


def run(stage: Any, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the command of a stage in this process."""
    monkeypatch.setattr(sys, "argv", [stage.__name__, key])
    stage.main()


def prepare_and_pack(source: Source, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Prepare and pack a source in a folder of its own; return the folder of the data."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["at_hand"] = [DATASET]
    params["datasets"][DATASET] = {
        "reader": source.reader,
        "source": str(source.path),
        "options": source.options,
        "published": False,
        "held_out": 0 if source.reader == "persons" else 3,
        "cameras": source.cameras,
        "recipes": {"plain": "tiny"},
        "seeds": [0],
        "networks": ["base"],
    }
    training = {**params["recipes"]["quick"]["training"], "height": HEIGHT, "width": WIDTH}
    params["recipes"]["tiny"] = {"training": training}
    work = source.path.parent / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    Path("params.yaml").write_text(yaml.safe_dump(params))
    run(prepare, DATASET, monkeypatch)
    run(pack, f"{DATASET}.{SIZE}", monkeypatch)
    return Path("data/prepared") / DATASET


class MeanColour(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean((2, 3))


def test_each_reader_has_a_layout_here() -> None:
    """`persons` has no split, hence no training."""
    builders = {**LAYOUTS, **MATS}
    assert {name.partition("-")[0] for name in builders} == set(readers()) - {"persons"}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_row_is_its_picture(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a set in its layout to the packed row, and to a perfect score of the mean colour."""
    source = {**LAYOUTS, **MATS}[name](tmp_path / "set")
    start = ""
    if kind != "folder":
        source = source._replace(path=archive_folder(source.path, kind))
        start = "set/"
    prepared = prepare_and_pack(source, monkeypatch)
    table = pd.read_parquet(prepared / "table.parquet")
    array = np.load(prepared / f"{SIZE}.npy")
    split = split_of_run(table, source.seed, hold_out=False)
    assert len(table) == len(array) == len(source.pictures) > 16  # more than one thread's task
    for row, path in enumerate(table.path):
        expected = source.pictures[path.removeprefix(start)]
        assert (table.person[row], table.camera[row], split[row]) == expected[:3]
        assert np.array_equal(array[row], resize(expected.pixels))
    assert len(np.unique(array, axis=0)) == len(array)

    held_out = split_of_run(table, source.seed, hold_out=True)
    for parts in (split, held_out):
        scores = score(MeanColour(), prepared, SIZE, parts, torch.device("cpu"))
        summary = scores.summary()
        assert summary["top-1"] == 1
        assert summary["mAP"] == (None if name == "cuhk03-classic" else 1)
        assert scores.cmc.index.tolist() == [
            query.Index
            for query in table[parts == "query"].itertuples()
            if any(
                image.person == query.person and image.camera != query.camera
                for image in table[parts == "gallery"].itertuples()
            )
        ]


def test_ranked_lists_show_the_pictures_that_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the mean colour the nearest pictures are of the person: as many as there are matches."""
    source = market1501(tmp_path / "set")
    prepared = prepare_and_pack(source, monkeypatch)
    trained = Run(DATASET, "base", "tiny", 0)
    monkeypatch.setattr(ranked_lists, "load_network", lambda _: MeanColour())
    images = ranked_lists.read_images(trained, load())
    for path, pixels in images.pixels.items():
        assert np.array_equal(pixels, resize(source.pictures[path].pixels))
    distances = ranked_lists.measure_distances(trained, images)
    table = pd.read_parquet(prepared / "table.parquet")
    count = 0
    for place, query in enumerate(images.queries.itertuples()):
        assert source.pictures[query.path][:2] == (query.person, query.camera)
        rows = ranked_lists.rank_neighbours(distances, place, images, len(table))
        matches = sum(
            picture.person == query.person and picture.camera != query.camera
            for picture in source.pictures.values()
            if picture.split == "gallery"
        )
        assert rows.right.tolist() == [True] * matches + [False] * (len(rows) - matches)
        for row in rows.itertuples():
            picture = source.pictures[row.path]
            assert str(picture.person) == row.person
            assert row.right == (picture.person == query.person)
            assert not (picture.person == query.person and picture.camera == query.camera)
        count += len(rows)
    assert count > 16


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_of_the_benchmark_fits_the_code(mutant: Mutant) -> None:
    assert mutant.fits(ROOT), (
        f"edit {mutant.name!r} of benchmarks/mutants.py: {mutant.file} differs"
    )
