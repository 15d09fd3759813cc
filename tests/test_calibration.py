"""Which pictures calibrate a model, and the commands `ianet calibrate` and `ianet compare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import written
from PIL import Image
from tiny_models import Outcome, tiny_model

import ianet
from ianet import drawing, verification
from ianet.calibration import (
    Calibration,
    PictureLabels,
    calibrate,
    check_limits,
    describe_doubt,
)
from ianet.comparison import Interval
from ianet.evaluation import list_pictures
from ianet.feature_table import FeatureTable, Identity
from ianet.open_set import OpenSetSearch, SearchThreshold
from ianet.pictures import Picture
from ianet.readers import read_source
from ianet.synthetic import archive
from ianet.verification import Curve, Threshold, Verification

MODEL = Identity("tiny", "ab")
PUBLISHED = ("--option", "published=false")


@pytest.fixture
def any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "LEAST_ERRORS", 1)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("people") / "people.zip"
    archive.write(
        target,
        train_identities=2,
        test_identities=8,
        distractors=2,
        junk=1,
        height=64,
        width=32,
        processes=1,
    )
    return target


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny")


def table(angles: list[float], persons: str, cameras: str, start: int) -> FeatureTable:
    """Features at angles in degrees; a letter for each person and camera."""
    radians = np.deg2rad(angles)
    features = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    paths = [f"{start + number}.jpg" for number in range(len(angles))]
    return FeatureTable(features, paths, list(persons), list(cameras), MODEL)


# Persons a and b are queries. x is nobody's query: a distractor.
QUERY = table([0, 90], "ab", "11", 0)
GALLERY = table([10, 100, 1, 95, 96], "abaxx", "22122", 10)


@pytest.mark.usefixtures("any_number")
def test_the_people_of_the_query_are_compared() -> None:
    calibration = calibrate(QUERY, GALLERY, dataset="set", fars=[0.2], search_fars=[0.5])
    assert (calibration.dataset, calibration.cameras) == ("set", "respect")
    # a at 0, 10, 1, of which 0 and 1 are from one camera; b at 90, 100.
    assert (calibration.pairs.images, calibration.pairs.identities) == (5, 2)
    assert (calibration.pairs.same_pairs, calibration.pairs.other_pairs) == (3, 6)
    assert calibration.search is not None
    assert (calibration.search.queries, calibration.search.mated, calibration.search.gallery) == (
        2,
        2,
        5,
    )
    # Only a's nearest other image, 90 apart from it, is beyond b's, 5 apart.
    [point] = calibration.search.thresholds
    assert point.distance.value == pytest.approx(1 - np.cos(np.radians(95)), abs=1e-6)
    assert point.dir.value == 0.5  # b is nearer to a distractor than to itself


@pytest.mark.usefixtures("any_number")
def test_cameras_may_be_ignored_and_a_picture_is_not_compared_with_itself() -> None:
    same = table([0, 10, 1, 90, 100], "aaabb", "22112", 0)
    calibration = calibrate(same, same, dataset="", cameras="ignore", fars=[0.2], search_fars=[0.3])
    assert (
        calibration.pairs.images,
        calibration.pairs.same_pairs,
        calibration.pairs.other_pairs,
    ) == (5, 4, 6)
    assert calibration.search is not None
    assert calibration.search.thresholds[0].dir.value == 1
    # Other persons are 80, 89, 90, 90, 99 and 100 apart, and one pair of six may be accepted.
    expected = 1 - np.cos(np.radians(89))
    assert calibration.pairs.thresholds[0].distance.value == pytest.approx(expected, abs=4e-6)


@pytest.mark.usefixtures("any_number")
def test_all_steps_are_reported() -> None:
    done: list[int] = []
    steps = check_limits(QUERY, GALLERY, cameras="respect", fars=[0.2], search_fars=[0.5])
    calibrate(QUERY, GALLERY, dataset="", fars=[0.2], search_fars=[0.5], advance=done.append)
    assert sum(done) == steps == 2 * 5 + 2


@pytest.mark.parametrize(
    ("person", "camera", "message"),
    [
        ("", "1", r"the person of 1 of 2 pictures is unknown, .* 1\.jpg: name the persons"),
        ("a", "", r"the camera of 1 of 2 pictures .* 1\.jpg: name the cameras, or ignore them"),
    ],
)
def test_unknown_labels_are_refused(person: str, camera: str, message: str) -> None:
    pictures = [
        Picture("0.jpg", lambda: None, "a", "1"),  # type: ignore[arg-type, return-value]
        Picture("1.jpg", lambda: None, person, camera),  # type: ignore[arg-type, return-value]
    ]
    labels = PictureLabels.of(pictures)
    with pytest.raises(ValueError, match=message):
        check_limits(labels, labels, cameras="respect", fars=[0.5], search_fars=[])


def estimate(value: float) -> Interval:
    return Interval(value, value - 0.01, value + 0.01)


CALIBRATION = Calibration(
    "set",
    "ignore",
    Verification(
        images=9,
        identities=3,
        same_pairs=9,
        other_pairs=27,
        thresholds=(
            Threshold(0.1, estimate(0.3), estimate(0.6)),
            Threshold(0.2, estimate(0.5), estimate(0.8)),
        ),
        eer=estimate(0.15),
        curve=Curve((0, 0.3, 0.5, 2), (0, 0.6, 0.8, 1), (0, 0.1, 0.2, 1)),
    ),
    OpenSetSearch(9, 3, 8, 20, (SearchThreshold(0.5, estimate(0.4), estimate(0.7)),)),
)


def test_thresholds_of_flipped_features_are_not_those_of_plain_ones() -> None:
    with pytest.raises(ValueError, match="with and without flip: embed them alike"):
        calibrate(replace(QUERY, flip=True), GALLERY, dataset="set", fars=[0.2])


@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize("flip", [True, False])
def test_a_calibration_knows_whether_features_are_flipped(flip: bool) -> None:
    query, gallery = replace(QUERY, flip=flip), replace(GALLERY, flip=flip)
    assert calibrate(query, gallery, dataset="set", fars=[0.2]).flip is flip


def test_the_threshold_of_searches() -> None:
    searches = OpenSetSearch(
        *(9, 3, 8, 20),
        (
            SearchThreshold(0.5, estimate(0.4), estimate(0.7)),
            SearchThreshold(0.1, estimate(0.2), estimate(0.6)),
        ),
    )
    calibration = replace(CALIBRATION, search=searches)
    assert calibration.find_search_threshold() is searches.thresholds[0]
    assert calibration.find_search_threshold(0.1) is searches.thresholds[1]
    with pytest.raises(
        ValueError, match=r"no threshold is known .* of 0\.3: choose one of 0\.5, 0\.1"
    ):
        calibration.find_search_threshold(0.3)
    assert replace(calibration, search=None).find_search_threshold(0.3) is None


def test_a_judgement_worked_by_hand() -> None:
    near = CALIBRATION.judge(0.15)
    assert (near.is_same, near.threshold.far) == (True, 0.1)
    assert (near.same_farther, near.other_nearer) == pytest.approx((0.7, 0.05))
    assert not CALIBRATION.judge(0.3).is_same  # below, not at
    far = CALIBRATION.judge(0.4)
    assert not far.is_same
    assert (far.same_farther, far.other_nearer) == pytest.approx((0.3, 0.15))
    assert CALIBRATION.judge(0.4, 0.2).is_same
    with pytest.raises(
        ValueError, match=r"no threshold is known .* of 0\.3: choose one of 0\.1, 0\.2"
    ):
        CALIBRATION.judge(0.4, 0.3)


def test_the_picture_shows_the_curve_and_the_thresholds() -> None:
    curve = CALIBRATION.pairs.curve
    figure = drawing.draw_verification(
        curve.distance, curve.same, curve.other, {0.1: (0.3, 0.6)}, "Title"
    )
    roc, histogram = figure.axes
    line, point = roc.lines
    assert line.get_xydata().tolist() == [[0.1, 0.6], [0.2, 0.8], [1, 1]]
    assert point.get_xydata().tolist() == [[0.1, 0.6]]
    [limit] = histogram.lines
    assert limit.get_xdata() == [0.3, 0.3]
    same, other = (bars.get_data() for bars in histogram.patches)
    assert same.edges[[0, -1]] == pytest.approx([0, 2], abs=1e-3)
    assert (same.values.sum(), other.values.sum()) == pytest.approx((1, 1), abs=1e-3)
    below = same.edges[1:] <= 0.3
    assert same.values[below].sum() == pytest.approx(0.6, abs=0.05)
    assert other.values[below].sum() == pytest.approx(0.1, abs=0.05)


def test_a_model_keeps_its_calibration(model: Path, tmp_path: Path) -> None:
    loaded = ianet.load(model)
    description = replace(loaded.description, calibration=CALIBRATION)
    ianet.model.write_model(loaded.network, description, tmp_path / "calibrated")
    again = ianet.load(tmp_path / "calibrated")
    assert again.description.calibration == CALIBRATION
    assert again.identity == loaded.identity
    card = (tmp_path / "calibrated/README.md").read_text()
    assert "| 0.1 | 0.3000 (0.2900 to 0.3100) | 60.0 (59.0 to 61.0) |" in card

    config = tmp_path / "calibrated/config.json"
    values = json.loads(config.read_text())
    # Files of before have no flip.
    assert values["calibration"].pop("flip") is False
    config.write_text(json.dumps(values))
    assert ianet.load(tmp_path / "calibrated").description.calibration == CALIBRATION
    values["calibration"]["flip"] = "no"
    config.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"config\.json: flip is 'no': it must be true or false"):
        ianet.load(tmp_path / "calibrated")
    del values["calibration"]["flip"]
    values["calibration"]["pairs"]["curve"]["same"][1] = 2
    config.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"config\.json: same holds 4 values that do not ascend"):
        ianet.load(tmp_path / "calibrated")


@pytest.mark.slow
@pytest.mark.usefixtures("any_number")
def test_a_model_is_calibrated_and_compares(
    run: Callable[..., Outcome], people: Path, model: Path, tmp_path: Path
) -> None:
    target, picture = tmp_path / "calibrated", tmp_path / "roc.svg"
    outcome = run(
        *("calibrate", model, people, *PUBLISHED, "--far", "0.05", "--far", "0.2"),
        *("--search-far", "0.9", "--picture", picture, "-o", target, "--json"),
    )
    assert (outcome.code, outcome.errors) == (0, "")
    answer = json.loads(outcome.output)
    loaded = ianet.load(target)
    calibration = loaded.description.calibration
    assert calibration is not None
    assert answer["pairs"]["same_pairs"] == calibration.pairs.same_pairs
    assert calibration.pairs.identities == 8
    assert (calibration.dataset, calibration.cameras) == ("people.zip", "respect")
    assert "same person" in picture.read_text()

    # The first threshold, recomputed from the features.
    files = tmp_path / "files"
    listing = read_source(people, None, {"published": "false"})
    pictures = list_pictures(listing, "query") + [
        each for each in list_pictures(listing, "gallery") if each.person != "0"
    ]
    files.mkdir()
    table = loaded.embed([each.open() for each in pictures], device="cpu")
    rows = table.features / np.linalg.norm(table.features, axis=1, keepdims=True)
    persons = np.array([each.person for each in pictures])
    other = np.sort((1 - rows @ rows.T)[np.triu(persons[:, None] != persons, 1)])
    assert calibration.pairs.other_pairs == len(other)
    threshold = calibration.pairs.thresholds[0]
    assert threshold.distance.value == pytest.approx(other[int(0.05 * len(other))], abs=1e-5)

    for name, place in (("a", 0), ("b", len(pictures) - 1)):
        pictures[place].open().save(files / f"{name}.png")
    distance = 1 - float(rows[0] @ rows[-1])
    outcome = run("compare", target, files / "a.png", files / "b.png", "--device", "cpu", "--json")
    answer = json.loads(outcome.output)
    judgement = calibration.judge(answer["distance"])
    assert answer["distance"] == pytest.approx(distance, abs=1e-5)
    assert answer["same_person"] == judgement.is_same
    assert (answer["far"], answer["same_farther"]) == (0.05, judgement.same_farther)

    outcome = run("compare", target, files / "a.png", files / "a.png")
    assert outcome.output.startswith("same person: the distance 0.0000 is below ")
    assert "100 % of the same person are as far" in outcome.output
    outcome = run("compare", target, files / "a.png", files / "a.png", "--far", "0.3")
    assert (outcome.code, outcome.output) == (2, "")
    assert (
        "no threshold is known for a false-accept rate of 0.3: choose one of 0.05, 0.2"
        in outcome.errors
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = written(tmp_path_factory.mktemp("pictures"), ["a.jpg", "b.jpg"])
    return sorted(root.iterdir())


def calibrated(model: Path, target: Path, calibration: Calibration) -> Path:
    """A copy of a model with thresholds."""
    loaded = ianet.load(model)
    description = replace(loaded.description, calibration=calibration)
    ianet.model.write_model(loaded.network, description, target)
    return target


@pytest.mark.parametrize("flip", [True, False])
def test_pictures_are_compared_as_they_were_calibrated(
    run: Callable[..., Outcome], model: Path, pictures: list[Path], tmp_path: Path, flip: bool
) -> None:
    target = calibrated(model, tmp_path / "calibrated", replace(CALIBRATION, flip=flip))
    distances = {}
    for kind in (True, False):
        rows = ianet.load(model).embed(pictures, flip=kind).features
        distances[kind] = verification.cosine_distance(*rows)
    assert abs(distances[True] - distances[False]) > 1e-4
    outcome = run("compare", target, *pictures, "--json")
    assert json.loads(outcome.output)["distance"] == pytest.approx(distances[flip], abs=1e-6)
    outcome = run("compare", target, *pictures, "--json", "--flip")
    if flip:
        assert json.loads(outcome.output)["distance"] == pytest.approx(distances[True], abs=1e-6)
    else:
        assert outcome == (
            2,
            "",
            f"error: this command has features with --flip, and the threshold of {target} has "
            "features without: the two cannot be compared, so take --flip for all pictures or for "
            "none\n",
        )
    outcome = run("compare", model, *pictures, "--flip")  # without a threshold
    assert outcome.output == f"distance {distances[True]:.4f}\n"


def test_the_card_says_whether_thresholds_are_of_flipped_pictures(
    model: Path, tmp_path: Path
) -> None:
    respected = replace(CALIBRATION, cameras="respect")
    for flip, text in ((True, "people of set, with the mirrored pictures (--flip). Other"),
                       (False, "people of set. Other")):  # fmt: skip
        target = calibrated(model, tmp_path / str(flip), replace(respected, flip=flip))
        assert text in (target / "README.md").read_text()


def test_the_card_says_where_cameras_were_ignored(model: Path, tmp_path: Path) -> None:
    card = (calibrated(model, tmp_path / "ignored", CALIBRATION) / "README.md").read_text()
    assert "From 9 pictures of 3 people of set, cameras ignored. Other" in card


def test_without_a_calibration_the_distance_alone_is_printed(
    run: Callable[..., Outcome], model: Path, people: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (10, 20), "red").save(tmp_path / "red.png")
    outcome = run("compare", model, tmp_path / "red.png", tmp_path / "red.png")
    assert (outcome.code, outcome.output) == (0, "distance 0.0000\n")
    assert outcome.errors == "the model has no threshold: `ianet calibrate` finds one\n"
    outcome = run("compare", model, tmp_path / "red.png", tmp_path / "red.png", "--far", "0.1")
    assert outcome.code == 2
    assert "has no threshold: find one with `ianet calibrate`" in outcome.errors
    (tmp_path / "bad.png").write_bytes(b"no picture")
    for words in (("bad.png", "red.png"), ("bad.png", "bad.png")):
        outcome = run("compare", model, *(tmp_path / word for word in words))
        assert (outcome.code, outcome.output) == (2, "")
        assert outcome.errors.startswith(f"error: {tmp_path}/bad.png cannot be decoded (")
    outcome = run("compare", model, tmp_path / "red.png", people)
    assert outcome.code == 2
    assert "pictures: name one" in outcome.errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--far", "0.0001"], "a false-accept rate of 0.0001 is "),
        (["--far", "2"], "the false-accept rate is 2: choose a share between 0 and 1"),
        (["--search-far", "0.01"], "a false-accept rate of 0.01 is "),
        (["--far", "0.5", "--far", "0.50"], "the false-accept rate 0.5 is given 2 times: give it"),
        (
            ["--search-far", "0.9", "--search-far", "0.9"],
            "the false-accept rate 0.9 is given 2 times: give it once",
        ),
        (["--picture", "roc.gif"], "roc.gif is to be a picture: name it .png or .svg"),
        (["--picture", "folder.png"], "folder.png is a folder: name a file"),
        (["--picture", "file/roc.png"], "file/roc.png cannot be written, as "),
        (["--picture", "same.png", "-o", "same.png"], "same.png would overwrite same.png: name"),
        (["-o", "tiny/sub"], "tiny/sub is in the folder of a model, "),
        (["-o", "file/sub"], "file/sub cannot be written, as "),
    ],
)
def test_bad_input_is_one_line_before_the_work(
    words: list[str],
    message: str,
    run: Callable[..., Outcome],
    people: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ianet.model.Model, "embed_batches", None)
    monkeypatch.chdir(tmp_path)
    Path("folder.png").mkdir()
    Path("file").touch()
    Path("tiny").symlink_to(model)
    target = tmp_path / "calibrated"
    far = () if "--far" in words else ("--far", "0.2")
    outcome = run("calibrate", model, people, *PUBLISHED, *far, "-o", target, *words)
    assert outcome.code == 2
    assert outcome.errors.startswith(f"error: {message}")
    assert outcome.errors.count("\n") == 1
    assert not target.exists()


def test_people_of_the_training_are_refused(
    run: Callable[..., Outcome], model: Path, tmp_path: Path
) -> None:
    names = ["train/anna/a_1.jpg", "query/anna/a_2.jpg", "gallery/anna/b_3.jpg"]
    written(tmp_path / "set", names)
    outcome = run("calibrate", model, tmp_path / "set", "-o", tmp_path / "calibrated")
    assert outcome.code == 2
    assert "has 1 persons of the query in its training split, such as anna" in outcome.errors


DOUBT = "the model was trained on my_photos, and "
REMEDY = ": thresholds and scores are too good for people of the training"


@pytest.mark.parametrize(
    ("source", "splits", "doubt"),
    [
        ("photos", {"a": "query", "b": "gallery"}, ""),
        ("data/My-Photos.zip", {"a": "query"}, "data/My-Photos.zip has no training split"),
        ("my_photos.csv", {"a": "query"}, "my_photos.csv has no training split"),
        ("my_photos", {"a": "query", "b": "train"}, ""),
        ("my_photos", {"a": "query", "b": "train", "c": "gallery"}, ""),
    ],
)
def test_people_of_the_training_may_be_in_a_set_of_its_name(
    source: str, splits: dict[str, str], doubt: str
) -> None:
    table = pd.DataFrame({"person": list(splits), "split": list(splits.values())})
    expected = f"{DOUBT}{doubt}{REMEDY}" if doubt else ""
    assert describe_doubt("my_photos", table, Path(source)) == expected


def test_a_list_that_was_not_read_is_a_doubt(tmp_path: Path) -> None:
    """As of photos that new_dataset split, whatever the data set is called."""
    everybody = pd.DataFrame({"person": [1, 2], "split": ["query", "gallery"]})
    listed = everybody.assign(split=["train", "query"])
    assert describe_doubt("lobby", everybody, tmp_path) == ""
    (tmp_path / "images.csv").write_text("path,person,camera,split\n")
    doubt = describe_doubt("lobby", everybody, tmp_path)
    assert doubt.startswith(f"{tmp_path}/images.csv may name a training split")
    assert doubt.endswith("leave out --reader to score the test split alone")
    assert describe_doubt("lobby", listed, tmp_path) == ""


def test_people_of_the_query_in_a_training_split_are_a_doubt() -> None:
    table = pd.DataFrame({"person": [1, 1, 2], "split": ["train", "query", "train"]})
    expected = f"{DOUBT}my_photos has people of the query in its training split{REMEDY}"
    assert describe_doubt("my_photos", table, Path("my_photos")) == expected


def test_a_set_of_several_splits_is_a_doubt() -> None:
    """Person 1 is of the test of split 0, and of the training of a model of split 1."""
    table = pd.DataFrame({"person": [1, 2], "split_0": ["query", "train"]})
    assert describe_doubt("cuhk03-labeled", table, Path("cuhk-03.mat")) == ""
    table["split_1"] = ["train", "query"]
    doubt = describe_doubt("cuhk03-labeled", table, Path("cuhk-03.mat"))
    assert doubt.startswith("cuhk-03.mat has 2 splits, and the first is scored")


@pytest.mark.usefixtures("any_number")
def test_a_set_that_may_have_been_trained_on_is_warned_of(
    run: Callable[..., Outcome], model: Path, tmp_path: Path
) -> None:
    names = [f"{person}/{number}.jpg" for person in "abc" for number in "12"]
    options = ("--reader", "persons", "--cameras", "ignore")
    for name, lines in (("synthetic", 1), ("others", 0)):
        photos = written(tmp_path / name, names)
        warning = f"warning: the model was trained on synthetic, and {photos} has no training split"
        target = tmp_path / f"{name}-calibrated"
        for command in (["evaluate"], ["calibrate", "--far", "0.5", "--flip", "-o", target]):
            outcome = run(*command, model, photos, *options)
            assert outcome.code == 0
            assert outcome.errors.count("warning:") == outcome.errors.count(warning) == lines
        calibration = ianet.load(target).description.calibration
        assert calibration is not None
        assert calibration.flip


def test_an_existing_model_is_not_replaced(
    run: Callable[..., Outcome], model: Path, people: Path
) -> None:
    outcome = run("calibrate", model, people, *PUBLISHED, "-o", model)
    assert outcome.code == 2
    assert "exists: name another folder" in outcome.errors


@pytest.mark.usefixtures("any_number")
def test_the_picture_may_be_in_the_folder_of_the_model(
    run: Callable[..., Outcome], model: Path, tmp_path: Path
) -> None:
    names = [f"{person}/{number}.jpg" for person in "abc" for number in "12"]
    photos, target = written(tmp_path / "photos", names), tmp_path / "calibrated"
    options = ("--reader", "persons", "--cameras", "ignore", "--far", "0.5")
    outcome = run(
        "calibrate", model, photos, *options, "-o", target, "--picture", target / "roc.svg"
    )
    assert outcome.code == 0
    assert "same person" in (target / "roc.svg").read_text()
    calibration = ianet.load(target).description.calibration
    assert calibration is not None
    assert calibration.pairs.thresholds[0].far == 0.5
