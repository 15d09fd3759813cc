"""Lists of pictures: their columns, blanks, and paths that are empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from ianet.pictures import find_pictures


def test_blanks_are_no_part_of_a_list_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('path , person, camera \na.png , anna , "hall "\n b c.png,bert\n')
    pictures = [picture._replace(open=len) for picture in find_pictures(path)]
    assert pictures == [
        (f"{tmp_path}/a.png", len, "anna", "hall"),
        (f"{tmp_path}/b c.png", len, "bert", ""),
    ]


@pytest.mark.parametrize("name", ["path", "person", "camera"])
def test_a_column_of_a_list_that_is_there_twice_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(f"path,person,camera, {name} \na.png,anna,hall,b.png\n")
    with pytest.raises(ValueError, match=rf"list\.csv has several columns {name}: keep a single"):
        find_pictures(path)
    path.write_text("path,note,note\na.png,1,2\n")
    assert [picture.path for picture in find_pictures(path)] == [f"{tmp_path}/a.png"]


def test_a_row_with_too_many_values_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path,person\na.png,anna,\n")
    with pytest.raises(ValueError, match=r"list\.csv is no list of paths \(.*line 2, saw 3\): wri"):
        find_pictures(path)


def test_an_empty_path_is_not_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    assert [picture.path for picture in find_pictures(".")] == ["./a.png"]
    for images in ("", [""]):
        with pytest.raises(ValueError, match=r"^a path is empty: give a picture, a folder or an"):
            find_pictures(images)
