"""The page of all results in a real browser, at a desktop's and a phone's width."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ianet import drawing
from pipeline import page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-quic",
    "--enable-logging=stderr",
)  # fmt: skip


def report() -> str:
    """Long labels, wide tables and figures."""
    cells = [page.Cell("52.1 ± 0.3", "ours"), page.Cell("+0.5 [-1.5, +2.5]", "unsure")] * 4
    names = tuple(f"synthetic-a-network-of-a-long-name-quick-{seed}" for seed in range(3))
    lines = [
        page.Line("a group", "graph convolution with a fixed adjacency", [*cells, page.Cell("3")]),
        page.Line("another", "base.", [*cells, page.Cell("3", runs=names)]),
    ]
    columns = ["top-1", "gain [95 %]"] * 4 + ["seeds"]
    part = page.Part("synthetic", columns, lines)
    sections = [
        page.Section(name, f"Table {name}", "A caption. " * 20, [part], "A note.")
        for name in ("1", "2", "3")
    ]
    curve = drawing.svg(drawing.learning_curves({"base.": ([2.0, 1.0], [0.5, 0.75])}))
    picture = {"name": "f", "title": "Figure", "caption": "What it is.", "svg": curve}
    run = {"key": names[0], "url": "http://127.0.0.1:5000/#/experiments/1/runs/" + "0" * 32,
           "dataset": "synthetic", "network": "a-network-of-a-long-name", "recipe": "quick",
           "seed": 0, "epochs": 3, "rate": 160.0, "minutes": 0.4}  # fmt: skip
    return page.html(
        "IANet, reproduced",
        sections,
        overview={"Recipe quick": "backbone resnet18, weights none, " * 10},
        figures=[picture],
        curves=[picture],
        runs=[run, {**run, "key": names[1], "url": None}],
    )


def visited(text: str, width: int, folder: Path) -> tuple[int, str]:
    """Width of the page's content in a frame of some width, and what the console said."""
    frame = folder / "frame.html"
    frame.write_text(
        f'<iframe id="page" width="{width}" height="800" style="border:0" '
        f'srcdoc="{html.escape(text)}"></iframe><script>page.onload = () => {{'
        "document.title = page.contentDocument.documentElement.scrollWidth}</script>"
    )
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}/profile", "--virtual-time-budget=5000",
         "--dump-dom", frame.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    title = re.search(r"<title>(\d+)</title>", done.stdout)
    assert title is not None, done.stderr
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return int(title[1]), "\n".join(said)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_no_overflow_and_no_console_error(width: int, tmp_path: Path) -> None:
    content, console = visited(report(), width, tmp_path)
    assert content <= width
    assert console == ""


def test_nothing_is_fetched() -> None:
    text = report()
    sources = re.findall(r'(?:src|href)="([^"#][^"]*)"', text)
    runs = "http://127.0.0.1:5000/#/experiments/1/runs/"
    assert all(source.startswith(("data:", runs)) for source in sources), sources
    assert "@import" not in text
    assert "url(http" not in text
