"""Market-1501's reader, packed images, and the held-out identities."""

from __future__ import annotations

import io
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ianet import images, packing
from ianet.datasets import market1501
from ianet.datasets.source import open_source
from ianet.options import Cameras
from pipeline.config.settings import SettingsError
from pipeline.data.scorable import has_match
from pipeline.data.splits import held_out_column, split_column, split_of_run
from pipeline.stages.pack import parse_key
from pipeline.stages.prepare import hold_out, number

SHARED = Path(__file__).parents[2] / "shared" / "data" / "Market-1501-v15.09.15.zip"


def test_reader(market: Path) -> None:
    table, counts, _, scoring = market1501.read(market, published=False)
    assert scoring == "ranking"
    # path's name, person, camera, split; junk is gone, the distractor is not
    assert [
        (Path(row.path).name, row.person, row.camera, row.split) for row in table.itertuples()
    ] == [
        ("0002_c1s1_000451_03.jpg", 2, 1, "train"),
        ("0002_c2s1_000476_01.jpg.jpg", 2, 2, "train"),
        ("0007_c3s3_077419_03.jpg", 7, 3, "train"),
        ("0003_c1s1_000776_00.jpg", 3, 1, "query"),
        ("0000_c1s1_000151_01.jpg", 0, 1, "gallery"),
        ("0003_c1s1_000801_01.jpg", 3, 1, "gallery"),
        ("0003_c4s6_015641_02.jpg", 3, 4, "gallery"),
    ]
    assert counts == {
        "train images": 3,
        "train identities": 2,
        "query images": 1,
        "query identities": 1,
        "gallery images": 3,
        "distractors": 1,
        "junk dropped": 1,
    }


def test_a_subset_is_not_taken_for_the_published_set(market: Path) -> None:
    with pytest.raises(ValueError, match="train images: 3 instead of 12,936"):
        market1501.read(market)


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data does not hold Market-1501")
def test_published_counts_on_the_real_set() -> None:
    table, counts, *_ = market1501.read(SHARED)
    assert counts == market1501.LAYOUT.published
    assert sorted(table.camera.unique()) == [1, 2, 3, 4, 5, 6]
    assert table.path.str.endswith(".jpg.jpg").sum() == 22  # 24, of which two are junk


def test_missing_and_damaged_sources(market: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist\. Expected: Market-1501"):
        market1501.read(tmp_path / "nowhere")
    if market.is_dir():
        for image in (market / "query").iterdir():
            image.unlink()
        with pytest.raises(FileNotFoundError, match="no image in a folder query"):
            market1501.read(market)
        (market / "query" / "person5.jpg").write_bytes(b"")
        with pytest.raises(ValueError, match=r"query/person5\.jpg is not named like 0002_c1s1"):
            market1501.read(market)
    else:
        content = market.read_bytes()
        market.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=r"damaged or not a (zip|tar) \("):
            market1501.read(market)


def test_packed_pixels_are_pillows(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "TASK", 3)  # three, three and one
    listing = market1501.read(market, published=False)
    table, files = listing.table, open_source(market, "")
    for height, width in ((32, 16), (128, 64)):  # smaller, and as they are
        target = tmp_path / f"{height}.npy"
        counts = list(packing.pack(listing.open, table.path.tolist(), (height, width), target))
        assert counts == list(range(1, 8))
        array = images.load(target)
        assert array.shape == (7, height, width, 3)
        for row, path in enumerate(table.path):
            with Image.open(io.BytesIO(files.read(path))) as image:
                expected = image.resize((width, height), Image.Resampling.BILINEAR)
            assert np.array_equal(array[row], np.asarray(expected))
    assert not list(tmp_path.glob(".*"))


def test_a_thread_holds_one_image_while_packing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    alive: WeakValueDictionary[int, Image.Image] = WeakValueDictionary()
    maximum = 0

    def open_image(path: str) -> Image.Image:
        nonlocal maximum
        image = Image.new("RGB", (16, 32))
        alive[id(image)] = image
        maximum = max(maximum, len(alive))
        return image

    progress = packing.pack(open_image, [""] * 100, (32, 16), tmp_path / "packed.npy")
    assert list(progress) == list(range(1, 101))
    # Each thread's next image is there before its last one goes.
    assert 1 <= maximum <= 4


@pytest.mark.parametrize("market", ["folder"], indirect=True)
def test_a_damaged_image_is_named_and_nothing_is_left(market: Path, tmp_path: Path) -> None:
    (market / "query" / "0003_c1s1_000776_00.jpg").write_bytes(b"no picture")
    listing = market1501.read(market, published=False)
    paths = listing.table.path.tolist()
    target = tmp_path / "packed.npy"
    with pytest.raises(ValueError, match=r"query/0003_c1s1_000776_00\.jpg cannot be decoded"):
        list(packing.pack(listing.open, paths, (32, 16), target))
    # Stopped half-way, as by Ctrl-C.
    progress = packing.pack(listing.open, paths[:3], (32, 16), target)
    next(progress)
    progress.close()
    assert not list(tmp_path.glob("*.npy"))
    assert not list(tmp_path.glob(".*"))


def test_rows_of_a_mask(tmp_path: Path) -> None:
    array = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    np.save(tmp_path / "packed.npy", array)
    loaded = images.load(tmp_path / "packed.npy", np.array([False, True]))
    assert np.array_equal(loaded, array[1:])


def test_normalized_by_hand() -> None:
    batch = torch.tensor([[[[0, 51, 255], [255, 0, 0]]]] * 2, dtype=torch.uint8)  # (2, 1, 2, 3)
    result = images.normalize(batch, torch.tensor([False, True]))
    left = [(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    right = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    torch.testing.assert_close(result[0, :, 0].T, torch.tensor([left, right]))
    torch.testing.assert_close(result[1, :, 0].T, torch.tensor([right, left]))
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_held_out_identities() -> None:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "person": np.repeat(np.arange(30), 12),
            "camera": rng.integers(1, 4, 360),
            "split": np.where(np.repeat(np.arange(30), 12) < 20, "train", "gallery"),
        }
    )
    split = hold_out(table, 5)
    training = table[split != ""]
    assert training.person.nunique() == 5
    assert (training.split == "train").all()
    # All images of an identity are held out, one query for each of its cameras.
    assert len(training) == 5 * 12
    queries = table[split == "query"]
    assert not queries.duplicated(["person", "camera"]).any()
    assert len(queries) == len(training[["person", "camera"]].drop_duplicates())
    assert split.equals(hold_out(table, 5))
    with pytest.raises(ValueError, match="held_out is 20, but there are only 20"):
        hold_out(table, 20)


def test_a_set_without_training_images_holds_nothing_out() -> None:
    table = pd.DataFrame({"person": [1, 1], "camera": [1, 2], "split": ["query", "gallery"]})
    assert hold_out(table, 0).tolist() == ["", ""]
    with pytest.raises(ValueError, match="held_out is 1, but there are only 0 training"):
        hold_out(table, 1)


@pytest.mark.parametrize(
    ("cameras", "gallery", "expected"),
    [("respect", (1, 2), True), ("respect", (1, 1), False), ("respect", (2, 2), False),
     ("ignore", (1, 1), True), ("ignore", (2, 2), False)],
)  # fmt: skip
@pytest.mark.parametrize("path", ["another", "of the query"])
def test_a_match_is_of_the_person_and_from_another_camera(
    cameras: Cameras, gallery: tuple[int, int], expected: bool, path: str
) -> None:
    person, camera = gallery
    expected = expected and not (cameras == "ignore" and path == "of the query")
    images = pd.DataFrame(
        {
            "path": ["of the query", path, "train", "of a distractor"],
            "person": [1, person, 1, 9],
            "camera": [1, camera, 2, 2],
        }
    )
    part = pd.Series(["query", "gallery", "", "gallery"])
    assert has_match(images, part, cameras=cameras) == expected


def test_the_split_of_a_run() -> None:
    table = pd.DataFrame(
        {
            "split": ["train", "train", "train", "query", "gallery"],
            "held_out": ["", "query", "gallery", "", ""],
        }
    )
    assert split_of_run(table, 5, hold_out=False).tolist() == table.split.tolist()
    assert split_of_run(table, 5, hold_out=True).tolist() == ["train", "query", "gallery", "", ""]


def test_the_seed_has_its_split() -> None:
    columns = [f"split_{number}" for number in range(20)]
    table = pd.DataFrame({column: ["train", "query"] for column in columns})
    assert [split_column(table, seed) for seed in (0, 1, 10, 19, 20, 42)] == [
        "split_0", "split_1", "split_10", "split_19", "split_0", "split_2",
    ]  # fmt: skip
    assert held_out_column("split_19") == "held_out_19"
    table["split_3"] = ["query", "train"]
    table["held_out_3"] = ["", "gallery"]
    assert split_of_run(table, 23, hold_out=False).tolist() == ["query", "train"]
    assert split_of_run(table, 23, hold_out=True).tolist() == ["", "gallery"]


def test_names_are_numbered_in_their_own_order() -> None:
    assert number(pd.Series(["bert", "anna", "10", "9", "bert"])).tolist() == [4, 3, 1, 2, 4]
    assert number(pd.Series([7, 0, 7])).tolist() == [7, 0, 7]


def test_the_key_of_a_packed_array() -> None:
    assert parse_key("synthetic.64x32") == ("synthetic", (64, 32))
    for text in ("synthetic", "synthetic-64x32", "synthetic.64", "synthetic.0x32", "a.64x-32"):
        with pytest.raises(SettingsError, match=f"{text!r} is no key: give <data set>.<height>x"):
            parse_key(text)
