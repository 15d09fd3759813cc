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

from ianet.readers import guess_reader
from pipeline import new_dataset
from pipeline.config.settings import Dataset, SettingsError, load
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
    assert (quick.training["height"], quick.training["width"]) == (128, 64)
    assert recipe.training == {**quick.training, "height": 64, "width": 32}  # the model's
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
        (
            [*PHOTOS, "a.csv", "b/c.PARQUET"],
            [],
            r"photos holds a\.csv, b/c\.PARQUET: a reader takes",
        ),
        ([*PHOTOS, " /a.jpg"], [], r"photos/ /a\.jpg lies in no person's folder"),
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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("anna", " anna"), ("anna", "anna "), ("anna", "-1"), ("door", "door\t"),
        ("hall_", " hall_"), ("hall_", "1.0_"),
    ],
)  # fmt: skip
def test_a_name_that_a_list_cannot_hold_is_refused(
    old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [name.replace(old, new).replace("door_", "1_") for name in PHOTOS]
    write_photos(Path("photos"), names)
    message = r"^photos/.+ cannot be listed: a list has no blanks at the ends of a name, takes -1"
    with pytest.raises(SettingsError, match=message) as info:
        run(monkeypatch, "photos")
    assert new in str(info.value)
    assert Path("params.yaml").read_text() == (ROOT / "params.yaml").read_text()
    assert not Path("photos/images.csv").exists()


def test_persons_that_a_list_would_merge_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    persons = dict(zip(("anna", "bert", "carl", "dora", "emil", "fred"), range(6), strict=True))
    numbers = [
        f"{persons[name[:4]]}{name[4:].replace('hall', '2').replace('door', '1')}"
        for name in PHOTOS
    ]
    write_photos(Path("photos"), [*numbers, "1.0/1_0.jpg"])
    with pytest.raises(SettingsError, match=r"^photos/1\.0/1_0\.jpg cannot be listed"):
        run(monkeypatch, "photos")
    shutil.rmtree("photos/1.0")
    run(monkeypatch, "photos")
    assert pd.read_csv("photos/images.csv").person.nunique() == 6


@pytest.mark.parametrize(
    ("folder", "arguments", "message"),
    [
        ("照片", [], r"^'' cannot name a data set: give --name with letters"),
        ("photos", ["--name", "a/b"], r"^'a/b' cannot name a data set: give --name with letters"),
        ("photos", ["--name", ""], r"^'' cannot name a data set: give --name with letters"),
        ("photos", ["--name=-x"], r"^'-x' cannot name a data set: give --name with letters"),
        ("photos", ["--name", "tables"], r"^tables is a folder of results/: give another name by"),
        ("tables", [], r"^tables is a folder of results/: give another name by --name$"),
        ("", [], r"^the path is empty: name a folder with a folder of photos for each person$"),
    ],
)
def test_a_wrong_name_is_told_before_any_image_is_looked_at(
    folder: str, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(Path(folder), PHOTOS)
    monkeypatch.setattr(new_dataset, "find_reader", lambda _: pytest.fail("images were looked at"))
    with pytest.raises(SettingsError, match=message):
        run(monkeypatch, folder, *arguments)


def test_an_entry_has_the_terms(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(Path("photos"), PHOTOS)
    run(monkeypatch, "photos", "--name", "plain")
    run(monkeypatch, "photos", "--terms", "Yes: only # within our house.")
    sets = load().datasets
    assert sets["photos"].terms == "Yes: only # within our house."
    assert sets["plain"].terms == Dataset.model_fields["terms"].default


@pytest.mark.parametrize(("names", "choice"), [(PHOTOS, ""), (None, " --cameras ignore")])
def test_each_network_has_a_line_that_trains_and_one_that_scores(
    names: list[str] | None,
    choice: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_photos(Path("my photos"), names or [name.replace("_", "-") for name in PHOTOS])
    run(monkeypatch, "my photos")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
    assert lines == [
        "    dvc repro model@my-photos.base.cpu.0",
        "    dvc repro model@my-photos.stage23.cpu.0",
        f"    ianet evaluate models/my-photos.base.cpu.0 'my photos'{choice}",
        f"    ianet evaluate models/my-photos.stage23.cpu.0 'my photos'{choice}",
    ]
    assert guess_reader(Path("my photos")) == "listed"  # as `ianet evaluate` does


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
