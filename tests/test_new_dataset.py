"""From a folder of photos to an entry of params.yaml, and the split that is proposed."""

from __future__ import annotations

import shutil
import sys
from difflib import ndiff
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import noise
from tiny_models import tiny_model

from pipeline import new_dataset
from pipeline.config.settings import SettingsError, load
from pipeline.data.proposal import propose_split
from pipeline.plan.plan import load_plan

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The YAML files of the project."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/synthetic.zip").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["new_dataset", *arguments])
    new_dataset.main()


def write_photos(folder: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(seed, 40, 20))
    return folder


PHOTOS = [
    f"{person}/{camera}_{shot}.jpg"
    for person in ("anna", "bert", "carl", "dora", "emil", "fred")
    for camera in ("hall", "door")
    for shot in range(2)
]


def test_photos_become_a_data_set_that_can_be_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("params.yaml").read_text()
    write_photos(Path("lobby photos"), PHOTOS)
    run(monkeypatch, "lobby photos")
    dataset = load().datasets["lobby-photos"]
    assert (dataset.reader, dataset.cameras) == ("listed", "respect")
    assert dataset.source == Path("lobby photos")
    assert dataset.recipes == {"plain": "cpu"}
    assert dataset.networks == ("base", "stage23")
    assert "lobby-photos" in load().at_hand
    # Nothing but the entry changes in params.yaml, comments included.
    lines = ndiff(before.splitlines(), Path("params.yaml").read_text().splitlines())
    assert not [line for line in lines if line.startswith("-")]
    output = capsys.readouterr().out
    assert "dvc repro model@lobby-photos.stage23.cpu.0" in output
    assert "model@${key}" not in output
    keys = [evaluation.key for evaluation in load_plan().evaluations()]
    assert "lobby-photos.stage23.cpu.0" in keys
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    assert "lobby-photos.stage23.cpu.0" in stages["model"]["foreach"]
    # Of an entry that leaves options out, DVC finds no such parameter.
    assert not [
        each
        for stage in stages.values()
        for each in stage.get("params", ())
        if "." in each and not each.startswith(("datasets.synthetic.synthetic", "datasets.${key}"))
    ]
    table = pd.read_csv("lobby photos/images.csv")
    assert len(table) == len(PHOTOS)
    assert table.person.tolist() == [path.split("/")[0] for path in table.path]
    assert table.camera.tolist() == [path.split("/")[1].split("_")[0] for path in table.path]
    train, test = (table[table.split.isin(part)] for part in (["train"], ["query", "gallery"]))
    assert train.person.nunique() == test.person.nunique() == 3
    assert not set(train.person) & set(test.person)
    # One query for each test person and camera.
    assert (test[test.split == "query"].groupby(["person", "camera"]).size() == 1).all()
    with pytest.raises(SettingsError, match=r"has a data set lobby-photos: give another one by"):
        run(monkeypatch, "lobby photos")
    run(monkeypatch, "lobby photos", "--name", "again")  # by the list that is there now
    assert load().datasets["again"].reader == "listed"


def test_trainings_start_from_a_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(Path("photos"), PHOTOS)
    tiny_model(Path("trained"))
    run(monkeypatch, "photos", "--recipe", "quick", "--start", "trained")
    assert "dvc repro model@photos.stage23.quick-photos.0" in capsys.readouterr().out
    settings = load()
    assert settings.datasets["photos"].recipes == {"plain": "quick-photos"}
    recipe, quick = settings.recipes["quick-photos"], settings.recipes["quick"]
    assert recipe.network == {**quick.network, "backbone": "mobilenet_v2", "weights": "trained"}
    assert recipe.training == quick.training
    assert recipe.minutes is None  # as quick has another backbone
    keys = [evaluation.key for evaluation in load_plan().evaluations()]
    assert "photos.stage23.quick-photos.0" in keys


def test_a_start_that_the_plan_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(Path("photos"), PHOTOS)
    tiny_model(Path("models/mine"))
    with pytest.raises(SettingsError, match="models/mine"):
        run(monkeypatch, "photos", "--start", "models/mine")
    assert Path("params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert not Path("photos/images.csv").exists()
    tiny_model(Path("trained"))
    with pytest.raises(SettingsError, match="has a recipe cpu-strong: give another --name"):
        run(monkeypatch, "photos", "--name", "strong", "--start", "trained")


def test_photos_of_one_camera_ignore_cameras(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [name.replace("hall_", "").replace("door_", "1") for name in PHOTOS]
    write_photos(Path("photos"), names)
    run(monkeypatch, "photos")
    assert load().datasets["photos"].cameras == "ignore"
    assert "cameras are ignored" in capsys.readouterr().out
    table = pd.read_csv("photos/images.csv")
    assert (table[table.split == "query"].groupby("person").size() == 1).all()


def test_a_layout_with_a_split_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"train/{name}" for name in PHOTOS[:12]]
    names += [f"{('query', 'gallery')[place % 2]}/{name}" for place, name in enumerate(PHOTOS[12:])]
    write_photos(Path("photos"), names)
    run(monkeypatch, "photos", "--recipe", "quick")
    assert load().datasets["photos"].reader == "folders"
    assert load().datasets["photos"].recipes == {"plain": "quick"}
    assert not Path("photos/images.csv").exists()


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        (["a.jpg", "anna/b.jpg"], [], r"photos/a\.jpg lies in no person's folder"),
        (["anna/a.jpg", "anna/b.jpg", "bert/a.jpg"], [], r"too few persons have two images \(1\)"),
        (PHOTOS, ["--recipe", "fast"], "--recipe names 'fast'"),
        (PHOTOS, ["--start", "model.zip"], r"model\.zip"),
        (PHOTOS, ["--name", "market1501"], "has a data set market1501"),
    ],
)
def test_what_is_not_ready_changes_nothing(
    names: list[str], arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(Path("photos"), names)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(monkeypatch, "photos", *arguments)
    assert Path("params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert not Path("photos/images.csv").exists()


def test_a_photo_that_is_damaged_or_there_twice_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(Path("photos"), PHOTOS)
    Path("photos/anna/hall_0.jpg").write_bytes(b"no picture")
    shutil.copy("photos/bert/hall_0.jpg", "photos/carl/hall_0.jpg")
    with pytest.raises(SettingsError, match="1 image is unreadable") as info:
        run(monkeypatch, "photos")
    assert "anna/hall_0.jpg" in str(info.value)
    assert "1 image is there more than once" in str(info.value)
    assert not Path("photos/images.csv").exists()


@pytest.mark.parametrize("cameras", ["respect", "ignore"])
def test_every_query_of_a_proposal_has_a_match(cameras: str) -> None:
    """By a slow look, for people whose images and cameras differ in number."""
    generator = np.random.default_rng(0)
    rows = [
        (person, int(camera))
        for person in range(40)
        for camera in generator.integers(1, 4, generator.integers(1, 7))
    ]
    images = pd.DataFrame(rows, columns=["person", "camera"])
    split = propose_split(images, cameras=cameras)
    test = images[split != "train"].assign(split=split)
    assert not set(images.person[split == "train"]) & set(test.person)
    queries, gallery = (test[test.split == part] for part in ("query", "gallery"))
    assert len(queries) > 10
    for query in queries.itertuples():
        same = gallery[gallery.person == query.person]
        assert len(same if cameras == "ignore" else same[same.camera != query.camera]) > 0


def test_the_minutes_of_a_training_follow_its_images() -> None:
    settings = load()
    cpu = settings.recipes["cpu"].model_copy(update={"minutes": 70})
    assert new_dataset.estimate_minutes(cpu, 12_936) == ", in about 70 minutes on one core"
    assert new_dataset.estimate_minutes(cpu, 1_293) == ", in about 7 minutes on one core"
    for name in ("paper", "quick"):  # without an estimate, and for drawn people
        assert new_dataset.estimate_minutes(settings.recipes[name], 12_936) == ""
