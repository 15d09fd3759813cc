"""Which images the page shows."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config.settings import Settings, load
from pipeline.report.samples import find_samples

PARTS = ["train", *["query"] * 5, "gallery", "query", *["query"] * 4]
PERSONS = [1, 2, 2, 2, 2, 3, 3, 3, 4, 5, 6, 7]
CAMERAS = [1, 1, 2, 3, 4, 1, 2, 3, 1, 1, 1, 1]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A drawn data set and photographs at hand, of both the same images, each of one grey."""
    settings = load().model_copy(update={"at_hand": ("market1501", "synthetic")})
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"person": PERSONS, "camera": CAMERAS, "split": PARTS})
    table["path"] = [f"{row}.jpg" for row in table.index]
    pixels = np.zeros((len(table), 128, 64, 3), np.uint8)
    pixels[:] = (20 * np.arange(len(table)))[:, None, None, None]
    for name in settings.at_hand:
        folder = Path("data/prepared", name)
        folder.mkdir(parents=True)
        (folder / "dataset.json").touch()
        table.to_parquet(folder / "table.parquet")
        for size in ("128x64", "256x128"):
            np.save(folder / f"{size}.npy", pixels)
    return settings


def test_the_first_queries_of_persons_are_shown_and_no_photograph(settings: Settings) -> None:
    [samples] = find_samples(settings)
    assert samples.dataset == "synthetic"
    rows = [1, 2, 3, 5, 7, 8, 9, 10, 11]  # but three of person 2, and no image of the gallery
    assert [text for _, text in samples.images] == [
        f"person {PERSONS[row]}, camera {CAMERAS[row]}" for row in rows
    ]
    for row, (source, _) in zip(rows, samples.images, strict=True):
        kind, _, content = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        assert image.size == (64, 128)
        assert np.abs(np.asarray(image, int) - 20 * row).max() <= 2


def test_twelve_images_are_enough(settings: Settings) -> None:
    path = Path("data/prepared/synthetic/table.parquet")
    table = pd.concat(5 * [pd.read_parquet(path)], ignore_index=True)
    table.assign(split="query", person=table.index // 4).to_parquet(path)
    np.save(path.with_name("128x64.npy"), np.zeros((len(table), 128, 64, 3), np.uint8))
    [samples] = find_samples(settings)
    persons = [text.split(",")[0] for _, text in samples.images]
    assert persons == [f"person {person}" for person in range(4) for _ in range(3)]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 128, 64, 3), np.uint8), "holds 2 images, not 12: pack the images again"),
        (np.zeros((12, 128, 64), np.uint8), r"holds uint8 of shape \(12, 128, 64\): packed"),
        (None, "is damaged: pack the images again"),
    ],
)
def test_images_that_are_no_packed_images_are_named(
    images: np.ndarray | None, message: str, settings: Settings
) -> None:
    path = Path("data/prepared/synthetic/128x64.npy")
    path.write_bytes(b"") if images is None else np.save(path, images)
    with pytest.raises(ValueError, match=f"^{path} {message}"):
        find_samples(settings)


@pytest.mark.parametrize("name", ["table.parquet", "dataset.json", "128x64.npy"])
def test_without_prepared_images_there_are_no_samples(name: str, settings: Settings) -> None:
    Path("data/prepared/synthetic", name).unlink()
    assert find_samples(settings) == []
