"""No picture of the documents is older than what it shows."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from PIL import Image

from docs.pictures import DOCS, SOURCE, TABLE, digest, draw_people, lay_out


def source_of(name: str) -> str:
    """The digest that a picture holds."""
    with Image.open(DOCS / name) as picture:
        return str(picture.info[SOURCE])


def test_each_picture_shows_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS.parent)
    assert {path.name for path in DOCS.glob("*.png")} == {"synthetic.png", "table4f.png"}
    people = lay_out(draw_people()).tobytes()
    assert source_of("synthetic.png") == digest(people), "call make pictures"
    # A reproduction may have changed the table, as git shows.
    name = f"HEAD:{TABLE.relative_to(DOCS.parent)}"
    table = subprocess.run(["git", "show", name], capture_output=True, check=True).stdout
    assert source_of("table4f.png") == digest(table), "call make pictures"


def test_every_picture_is_shown() -> None:
    pages = [DOCS.parent / "README.md", *DOCS.glob("*.md")]
    texts = "".join(page.read_text() for page in pages)
    assert [path.name for path in Path(DOCS).glob("*.png") if path.name not in texts] == []
