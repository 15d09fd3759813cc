"""What `ianet validate` finds wrong, in words."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from conftest import noise
from tiny_models import Outcome

from ianet.options import Cameras
from ianet.readers import guess_reader
from ianet.validation import find_table_problems

RIGHT = [
    ("anna", "hall", "train"),
    ("anna", "door", "train"),
    ("bert", "hall", "query"),
    ("bert", "door", "gallery"),
    ("carl", "door", "query"),
    ("carl", "hall", "gallery"),
]


def table(*rows: tuple[str | int, str | int, str]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=["person", "camera", "split"])
    return frame.assign(path=[f"{number}.jpg" for number in range(len(rows))])


def test_nothing_is_wrong() -> None:
    assert list(find_table_problems(table(*RIGHT))) == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (RIGHT[:3], "there is no image in gallery"),
        (
            [*RIGHT, ("anna", "hall", "gallery")],
            "1 identity is in both train and test: anna. Scores would be too good",
        ),
        (
            [*RIGHT, *((f"x{n}", "hall", "query") for n in range(7))],
            "7 identities are in the query and missing from the gallery: x0, x1, x2, x3, x4 and "
            "2 more",
        ),
        (
            [(person, 6, split) for person, _, split in RIGHT],
            "every query would be left without a match: all images of query and gallery are from "
            "one camera, 6, and a match must be from another camera than the query. Name the "
            "cameras, or ignore them (--cameras ignore)",
        ),
        (
            [(person, "", split) for person, _, split in RIGHT],
            "every query would be left without a match: no camera is known, and a match must be "
            "from another camera than the query. Name the cameras, or ignore them (--cameras "
            "ignore)",
        ),
        (
            [*RIGHT, ("carl", "", "gallery")],
            "1 image is without a camera, where others have one: 6.jpg. Such images count as of "
            "one camera",
        ),
        (
            [*RIGHT[:4], ("carl", "hall", "query"), ("carl", "hall", "gallery")],
            "1 query is left without a match, as the gallery has its identity from its own camera "
            "only, or has no other image: 4.jpg",
        ),
        (
            [("x", 1, "train"), ("a", 1, "query"), ("a", 1, "gallery"), ("b", 2, "gallery")],
            "every query would be left without a match: none has a gallery image of its identity "
            "from another camera. Add images from other cameras, or ignore them (--cameras ignore)",
        ),
    ],
)
def test_what_is_wrong_with_who_is_where(
    rows: list[tuple[str | int, str | int, str]], message: str
) -> None:
    problems = list(find_table_problems(table(*rows)))
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_who_ignores_cameras_is_not_told_to() -> None:
    rows = [("x", 1, "train"), ("a", 1, "query"), ("b", 2, "gallery")]
    problems = list(find_table_problems(table(*rows), "ignore"))
    assert problems[-1].startswith("every query would be left without a match: none")
    assert "--cameras" not in problems[-1]


@pytest.mark.parametrize("cameras", ["respect", "ignore"])
@pytest.mark.parametrize(
    ("path", "person", "camera", "split", "is_told"),
    [
        ("0.jpg", "anna", "hall", "train", True),
        ("0.jpg", "dora", "hall", "train", True),
        ("2.jpg", "bert", "hall", "query", True),
        ("3.jpg", "bert", "door", "gallery", True),
        ("2.jpg", "bert", "hall", "gallery", False),  # the query's own picture
        ("2.jpg", "carl", "hall", "gallery", True),
        ("0.jpg", "bert", "door", "gallery", True),  # of a person of test, as of train
    ],
)
def test_an_image_that_is_listed_twice_is_told(
    path: str, person: str, camera: str, split: str, is_told: bool, cameras: Cameras
) -> None:
    frame = table(*RIGHT, (person, camera, split))
    frame.loc[len(RIGHT), "path"] = path
    sentence = f"1 image is listed more than once: {path}. Keep a single row of an image"
    problems = list(find_table_problems(frame, cameras))
    assert [problem.startswith(sentence) for problem in problems] == [True] * is_told


def test_an_image_may_stand_in_several_splits_of_a_protocol() -> None:
    frame = table(*RIGHT).rename(columns={"split": "split_0"})
    frame["split_1"] = ["query", "gallery", "train", "train", "", ""]
    assert list(find_table_problems(frame)) == []


def test_each_of_several_splits_is_looked_at() -> None:
    frame = table(*RIGHT).rename(columns={"split": "split_0"})
    frame["split_1"] = ["query", "gallery", "train", "train", "train", "train"]
    frame["split_2"] = ["query", "query", "train", "train", "train", "train"]
    assert list(find_table_problems(frame)) == ["split_2: there is no image in gallery"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (person, camera, split) in enumerate(RIGHT):
        path = tmp_path / "mine" / split / person / f"{camera}_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(number, 32, 16))
    return tmp_path / "mine"


def test_the_command_on_a_right_set(folder: Path, run: Callable[..., Outcome]) -> None:
    outcome = run("validate", folder)
    assert outcome.code == 0
    assert "read by folders: 2 train images, 1 train identities, 2 query images" in outcome.output
    assert "nothing is wrong" in outcome.output


def test_the_command_on_a_wrong_set(folder: Path, run: Callable[..., Outcome]) -> None:
    shutil.copy(folder / "query/bert/hall_2.jpg", folder / "gallery/carl/door_9.jpg")
    (folder / "train/anna/hall_0.jpg").write_bytes(b"no picture")
    (folder / "gallery/bert/door_3.jpg").write_bytes(noise(3, 32, 16)[:300])
    outcome = run("validate", folder)
    assert outcome.code == 1
    wrong = [line for line in outcome.output.splitlines() if line.startswith("wrong: ")]
    assert len(wrong) == 2
    assert wrong[0].startswith("wrong: 2 images are unreadable: the image gallery/bert/door_3.jpg")
    assert "the image train/anna/hall_0.jpg cannot be decoded" in wrong[0]
    assert wrong[1] == (
        "wrong: 1 image is there more than once: query/bert/hall_2.jpg = gallery/carl/door_9.jpg"
    )


def test_the_command_on_what_is_no_data_set(tmp_path: Path, run: Callable[..., Outcome]) -> None:
    outcome = run("validate", tmp_path)
    assert outcome.code == 2
    assert outcome.errors.startswith(
        f"error: {tmp_path} is in the layout of no known data set: name"
    )
    outcome = run("validate", tmp_path, "--reader", "msmt17")
    assert outcome.errors.startswith("error: reader msmt17 needs training, without a default")
    outcome = run("validate", tmp_path, "--reader", "msmt17", "--option", "training")
    assert outcome.errors == "error: --option training: write it as name=value\n"


def test_the_command_takes_a_readers_options(market: Path, run: Callable[..., Outcome]) -> None:
    outcome = run("validate", market)
    assert outcome.errors.startswith(f"error: {market} is not all of Market-1501")
    outcome = run("validate", market, "--option", "published=false")
    # Its noise is drawn with few seeds, so that pictures repeat.
    assert "read by market1501: 3 train images" in outcome.output
    assert "images are there more than once" in outcome.output
    outcome = run("validate", market, "--option", "published=no")
    assert outcome.errors == "error: published is 'no': it must be true or false\n"
    outcome = run("validate", market, "--option", "publish=false")
    assert (
        outcome.errors == "error: reader market1501 has no option publish: choose from published\n"
    )
    outcome = run("validate", market, "--reader", "market")
    assert outcome.errors.startswith("error: there is no reader 'market': choose from cuhk03")


def test_a_set_without_cameras_for_scores_alone(
    tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    for number, name in enumerate(["anna/1.jpg", "anna/2.jpg", "bert/3.jpg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(number, 32, 16))
    arguments = ["validate", tmp_path / "photos", "--reader", "persons", "--cameras", "ignore"]
    outcome = run(*arguments)
    assert outcome.code == 1
    assert outcome.output.splitlines()[1:] == [
        "wrong: 1 query is left without a match, as the gallery has its identity from its own "
        "camera only, or has no other image: bert/3.jpg"
    ]
    (tmp_path / "photos/bert/4.jpg").write_bytes(noise(4, 32, 16))
    outcome = run(*arguments)
    assert (outcome.code, outcome.output.splitlines()[1:]) == (0, ["nothing is wrong"])


def test_problems_as_json(folder: Path, run: Callable[..., Outcome]) -> None:
    (folder / "train/anna/hall_0.jpg").write_bytes(b"no picture")
    outcome = run("validate", folder, "--json")
    answer = json.loads(outcome.output)
    assert outcome.code == 1
    assert (answer["reader"], answer["counts"]["train images"]) == ("folders", 2)
    assert [problem[:21] for problem in answer["problems"]] == ["1 image is unreadable"]


def test_a_layout_of_several_readers_is_not_guess_reader(folder: Path) -> None:
    (folder / "people.csv").write_text("path,person,camera,split\n")
    with pytest.raises(ValueError, match="in the layout of folders and of listed: name it with"):
        guess_reader(folder)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        guess_reader(folder / "nowhere")


def test_it_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys; import ianet.validation; from ianet.readers import readers;"
        "readers();"
        "print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert outcome.stdout == "set()\n"
