"""A page in a real browser: Debian's Chromium, or Chrome, led by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, sync_playwright

Test = TypeVar("Test", bound=Callable[..., None])

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def needs_browser(test: Test) -> Test:
    """Skip a test where there is no browser, and say so."""
    skip = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
    return pytest.mark.privileged(skip(test))


@contextmanager
def open_page(
    content: str, width: int = 1280, scheme: Literal["dark", "light"] = "light"
) -> Iterator[tuple[Page, list[str]]]:
    """Show an HTML text.

    Yields:
        The page, and a list that receives what the browser's console prints.
    """
    messages: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.set_content(content)
        yield page, messages
        browser.close()


def find_violations(page: Page) -> list[str]:
    """What axe-core finds at any level: its rule, and the first element."""
    violations = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in violations]
