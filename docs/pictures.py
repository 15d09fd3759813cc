"""The pictures of README and the documents, from today's code and results.

    make pictures

Chromium, or Chrome, photographs the table. Each PNG holds the SHA-256 of what it shows, by which
tests/test_pictures.py finds a picture that is older than that.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import sync_playwright

from ianet.synthetic.archive import draw_shot, plan_shots
from pipeline.config.settings import load

DOCS = Path(__file__).parent
TABLE = DOCS.parent / "results/tables/table4f.html"
SOURCE = "Source"  # key in a PNG of the digest of what it shows
ROWS, COLUMNS = 4, 12  # people, and images of each
HEIGHT, WIDTH, GAP = 128, 64, 2


def draw_people() -> list[bytes]:
    """JPEGs of the default benchmark's first test people with enough images, a row for each."""
    sizes = load().datasets["synthetic"].synthetic
    assert sizes is not None
    shots = plan_shots(sizes.train_identities, sizes.test_identities, 3, 0, 0, sizes.seed)
    people = [list(group) for _, group in itertools.groupby(shots, lambda shot: shot.identity)]
    tested = [person[:COLUMNS] for person in people if person[0].folder != "bounding_box_train"]
    rows = [person for person in tested if len(person) == COLUMNS][:ROWS]
    return [draw_shot(shot, HEIGHT, WIDTH, sizes.seed) for row in rows for shot in row]


def lay_out(jpegs: Sequence[bytes]) -> Image.Image:
    """One picture of all, COLUMNS a row."""
    across, down = COLUMNS * (WIDTH + GAP) - GAP, ROWS * (HEIGHT + GAP) - GAP
    picture = Image.new("RGB", (across, down), "white")
    for place, jpeg in enumerate(jpegs):
        row, column = divmod(place, COLUMNS)
        corner = (column * (WIDTH + GAP), row * (HEIGHT + GAP))
        picture.paste(Image.open(io.BytesIO(jpeg)), corner)
    return picture


def photograph(page: Path) -> Image.Image:
    """A page of 920 pixels' width, down to its end."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    if browser_path is None:
        sys.exit("error: no Chromium was found: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 920, "height": 100}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        png = tab.screenshot(full_page=True)
        browser.close()
    return Image.open(io.BytesIO(png))


def digest(content: bytes) -> str:
    """The SHA-256 of what a picture shows."""
    return hashlib.sha256(content).hexdigest()


def save(name: str, picture: Image.Image, source: str) -> None:
    """Write docs/<name>; `source` is the digest of what the picture shows."""
    info = PngInfo()
    info.add_text(SOURCE, source)
    picture.quantize(256).save(DOCS / name, optimize=True, pnginfo=info)


def main() -> None:
    people = lay_out(draw_people())
    save("synthetic.png", people, digest(people.tobytes()))  # another Pillow gives other JPEGs
    save("table4f.png", photograph(TABLE), digest(TABLE.read_bytes()))


if __name__ == "__main__":
    main()
