"""What `pipeline.validate` finds wrong, in words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from conftest import noise

from pipeline import validate
from pipeline.config.settings import SettingsError
from pipeline.data.readers import guess_reader
from pipeline.shell import command
from pipeline.validate import find_table_problems

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
            "one camera, 6, and a match must be from another camera than the query",
        ),
        (
            [*RIGHT[:4], ("carl", "hall", "query"), ("carl", "hall", "gallery")],
            "1 query is left without a match, as the gallery has its identity from its own camera "
            "only: 4.jpg",
        ),
        (
            [("x", 1, "train"), ("a", 1, "query"), ("a", 1, "gallery"), ("b", 2, "gallery")],
            "every query would be left without a match: none has a gallery image",
        ),
    ],
)
def test_what_is_wrong_with_who_is_where(
    rows: list[tuple[str | int, str | int, str]], message: str
) -> None:
    problems = list(find_table_problems(table(*rows)))
    assert len(problems) == 1
    assert problems[0].startswith(message)


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


class Outcome(NamedTuple):
    code: int | str | None
    """1, or a line for stderr and then 1; None when nothing is wrong."""
    output: str


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """The command, in this process."""

    def run(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["validate", *map(str, arguments)])
        code = None
        try:
            command(validate.main)
        except SystemExit as end:
            code = end.code
        return Outcome(code, capsys.readouterr().out)

    return run


def test_the_command_on_a_right_set(folder: Path, run: Callable[..., Outcome]) -> None:
    outcome = run(folder)
    assert outcome.code is None
    assert "read by folders: 2 train images, 1 train identities, 2 query images" in outcome.output
    assert "nothing is wrong" in outcome.output


def test_the_command_on_a_wrong_set(folder: Path, run: Callable[..., Outcome]) -> None:
    shutil.copy(folder / "query/bert/hall_2.jpg", folder / "gallery/carl/door_9.jpg")
    (folder / "train/anna/hall_0.jpg").write_bytes(b"no picture")
    (folder / "gallery/bert/door_3.jpg").write_bytes(noise(3, 32, 16)[:300])
    outcome = run(folder)
    assert outcome.code == 1
    wrong = [line for line in outcome.output.splitlines() if line.startswith("wrong: ")]
    assert len(wrong) == 2
    assert wrong[0].startswith("wrong: 2 images are unreadable: the image gallery/bert/door_3.jpg")
    assert "the image train/anna/hall_0.jpg cannot be decoded" in wrong[0]
    assert wrong[1] == (
        "wrong: 1 image is there more than once: query/bert/hall_2.jpg = gallery/carl/door_9.jpg"
    )


def test_the_command_on_what_is_no_data_set(tmp_path: Path, run: Callable[..., Outcome]) -> None:
    outcome = run(tmp_path)
    assert str(outcome.code).startswith(
        f"error: {tmp_path} is in the layout of no known data set: name"
    )
    outcome = run(tmp_path, "--reader", "msmt17")
    assert str(outcome.code).startswith("error: reader msmt17 needs training, without a default")
    outcome = run(tmp_path, "--reader", "msmt17", "--option", "training")
    assert outcome.code == "error: --option training: write it as name=value"


def test_the_command_takes_a_readers_options(market: Path, run: Callable[..., Outcome]) -> None:
    outcome = run(market)
    assert str(outcome.code).startswith(f"error: {market} is not all of Market-1501")
    outcome = run(market, "--option", "published=false")
    # Its noise is drawn with few seeds, so that pictures repeat.
    assert "read by market1501: 3 train images" in outcome.output
    assert "images are there more than once" in outcome.output


def test_a_layout_of_several_readers_is_not_guess_reader(folder: Path) -> None:
    (folder / "people.csv").write_text("path,person,camera,split\n")
    with pytest.raises(SettingsError, match="in the layout of folders and of listed: name it with"):
        guess_reader(folder)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        guess_reader(folder / "nowhere")


def test_it_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from pipeline import validate; from pipeline.data import readers;"
        "readers.readers();"
        "print({'torch', 'ray', 'mlflow'} & set(sys.modules))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert outcome.stdout == "set()\n"
