"""A page in a real browser: Debian's Chromium, or Chrome, led by Playwright."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

Test = TypeVar("Test", bound=Callable[..., None])
Scheme = Literal["dark", "light"]

VIEWS: tuple[tuple[int, Scheme], ...] = (
    *((1280, "light"), (1280, "dark")),
    *((390, "light"), (390, "dark")),
)
"""Widths of a desktop and of a phone, in both colour schemes."""
AA = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
"""Tags of rules of axe-core. By default axe-core leaves some of them out, as `target-size`."""
AAA = (*AA, "wcag2aaa")

# The first text of each element that lies left or right of the view, and in no box that scrolls.
OUTSIDE = """([selector, width]) => [...document.querySelectorAll(selector)]
  .filter(each => each.checkVisibility() && each.innerText.trim())
  .filter(each => {
    for (let box = each; box; box = box.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(box).overflowX)) return false;
    const {left, right} = each.getBoundingClientRect();
    return left < 0 || right > width;
  })
  .map(each => each.innerText.trim().slice(0, 40))"""
SMALL = """selector => [...document.querySelectorAll(selector)]
  .filter(each => each.checkVisibility() && each.innerText.trim())
  .filter(each => parseFloat(getComputedStyle(each).fontSize) < 11)
  .map(each => each.innerText.trim().slice(0, 40))"""

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def needs_browser(test: Test) -> Test:
    """Skip a test where there is no browser, and say so."""
    skip = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
    return pytest.mark.privileged(skip(test))


@contextmanager
def start_browser() -> Iterator[Browser]:
    """A browser for some pages. No code of asyncio runs in this process meanwhile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(
    browser: Browser,
    content: str,
    width: int = 1280,
    scheme: Scheme = "light",
    scripts: bool = True,
) -> Iterator[tuple[Page, list[str]]]:
    """Show an HTML text, with or without its scripts, to a person who never saw a page before.

    Yields:
        The page, and a list that receives what the browser's console prints.
    """
    messages: list[str] = []
    page = browser.new_page(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        java_script_enabled=scripts,
    )
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.set_content(content)
    try:
        yield page, messages
    finally:
        page.close()


def find_violations(page: Page, tags: tuple[str, ...] = AAA) -> list[str]:
    """What axe-core finds by the rules of the tags: the rule, and the first element."""
    options = {"runOnly": {"type": "tag", "values": tags}, "resultTypes": ["violations"]}
    violations = Axe().run(page, options=options).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in violations]


def find_faults(page: Page, width: int, scheme: Scheme, content: str) -> list[str]:
    """What a person would see on a picture of the whole page, in words.

    Args:
        page: in a view of this width and colour scheme.
        width, scheme: of the view.
        content: CSS selector of what holds the text.
    """
    picture = page.screenshot(full_page=True)
    grey = Image.open(io.BytesIO(picture)).convert("L")
    counts = np.array(grey.histogram())  # of pixels, by brightness
    ground = int(np.searchsorted(counts.cumsum(), counts.sum() / 2))  # the median
    ink = float(counts[abs(np.arange(256) - ground) > 64].sum() / counts.sum())
    faults = []
    if grey.width != width or page.evaluate("document.body.scrollWidth") > width:
        faults.append(f"the page is wider than {width} pixels")
    if not (ground < 64 if scheme == "dark" else ground > 224):
        faults.append(f"the ground has a brightness of {ground}, which is not {scheme}")
    if not 0.005 < ink < 0.4:
        faults.append(f"{ink:.1%} of the pixels differ from the ground")
    parts = ", ".join(
        f"{content} {tag}" for tag in ("h1", "h2", "h3", "p", "li", "td", "th", "code")
    )
    faults += [f"outside: {text}" for text in page.evaluate(OUTSIDE, [parts, width])]
    return faults + [f"small: {text}" for text in page.evaluate(SMALL, parts)]
