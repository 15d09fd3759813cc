"""The page of all results in a real browser, at a desktop's and a phone's width."""

from __future__ import annotations

from typing import Literal

import pytest
from browser import find_violations, needs_browser, open_page
from page_samples import FAILED, KEYS, report, table_page
from playwright.sync_api import Browser


@needs_browser
@pytest.mark.parametrize(
    ("width", "scheme", "kind"),
    [
        *((1280, "light", "report"), (1280, "dark", "report"), (390, "light", "report")),
        *((390, "dark", "report"), (390, "light", "table")),
    ],
)
def test_a_browser_and_axe_find_nothing_wrong(
    browser: Browser, width: int, scheme: Literal["dark", "light"], kind: str
) -> None:
    content = table_page() if kind == "table" else report()
    with open_page(browser, content, width, scheme) as (tab, messages):
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        boxes = tab.locator(".wide, figure > div")
        is_marked = "box => (box.scrollWidth > box.clientWidth) == (box.tabIndex == 0)"
        assert all(boxes.evaluate_all(f"boxes => boxes.map({is_marked})"))
        tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert find_violations(tab) == []
        assert messages == []


@needs_browser
def test_without_scripts_the_page_has_the_same_text(browser: Browser) -> None:
    texts = []
    for scripts in (True, False):
        with open_page(browser, report(), scripts=scripts) as (tab, _):
            texts.append(tab.locator("main").inner_text())
    assert texts[0] == texts[1]
    assert KEYS[0] in texts[1]


@needs_browser
def test_on_paper_tables_are_whole_and_there_is_no_navigation(browser: Browser) -> None:
    paper = 794  # pixels, of A4
    with open_page(browser, report(), paper) as (tab, _):
        assert tab.locator("nav").is_visible()
        tab.emulate_media(media="print")
        assert not tab.locator("nav").is_visible()
        assert tab.evaluate("document.documentElement.scrollWidth") <= paper
        widths = tab.locator(".wide").evaluate_all(
            "boxes => boxes.map(box => [box.scrollWidth, box.clientWidth])"
        )
        assert widths
        assert all(inner <= outer for inner, outer in widths)


WIDTH = "element => element.getBoundingClientRect().width"
TOP = "element => element.getBoundingClientRect().top"
COLOURS = """svg => {
  const style = element => getComputedStyle(element);
  return [style(svg.querySelector("path")).fill, style(svg.querySelector("text")).fill,
    style(svg.querySelector('[style*="stroke: #000000"]')).stroke,
    style(document.body).backgroundColor, style(document.body).color];
}"""


@needs_browser
@pytest.mark.parametrize(
    ("scheme", "paper", "ink"),
    [
        ("light", "rgb(255, 255, 255)", "rgb(31, 35, 40)"),
        ("dark", "rgb(13, 17, 23)", "rgb(230, 237, 243)"),
    ],
)
def test_pictures_have_the_colours_of_the_page(
    browser: Browser, scheme: Literal["dark", "light"], paper: str, ink: str
) -> None:
    """The ground, the texts and the ticks."""
    with open_page(browser, report(), 390, scheme) as (tab, _):
        colours = tab.locator("figure svg").evaluate_all(f"all => all.map({COLOURS})")
        assert colours == [[paper, ink, ink, paper, ink]] * 8


@needs_browser
@pytest.mark.parametrize("width", [360, 390])
def test_all_gains_fit_a_phone_at_full_size(browser: Browser, width: int) -> None:
    with open_page(browser, report(), width) as (tab, _):
        box = tab.locator('figure[aria-label="All gains"] > div')
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
        assert box.get_attribute("tabindex") is None
        heights = box.locator("text").evaluate_all(
            "texts => texts.map(text => text.getBoundingClientRect().height)"
        )
        assert min(heights) >= 11


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_figure_zooms_and_the_head_of_the_runs_stays_in_sight(
    browser: Browser, width: int
) -> None:
    with open_page(browser, report(), width) as (tab, messages):
        figure = tab.locator('figure[aria-label="Figure"]')
        box = figure.locator("div")
        figure.get_by_role("checkbox", name="Zoom in on Figure").check()
        natural = figure.locator("svg").evaluate("svg => svg.width.baseVal.value")
        assert figure.locator("svg").evaluate(WIDTH) == pytest.approx(2 * natural, abs=1)
        is_wide = box.evaluate("box => box.scrollWidth > box.clientWidth")
        assert box.get_attribute("tabindex") == ("0" if is_wide else None)  # for keys
        assert is_wide or width > 390
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        figure.get_by_role("checkbox").uncheck()
        assert figure.locator("svg").evaluate(WIDTH) <= natural
        runs = tab.locator("#runs-list")
        runs.evaluate("box => { box.style.maxHeight = '100px'; box.scrollTop = 1000; }")
        assert runs.evaluate("box => box.scrollTop") > 50
        title = tab.get_by_role("button", name="minutes").locator("..")
        assert title.evaluate(TOP) == runs.evaluate(TOP)
        assert messages == []


@needs_browser
def test_runs_are_filtered_and_sorted(browser: Browser) -> None:
    with open_page(browser, report()) as (tab, messages):
        rows = tab.locator("#run-table tbody tr")
        before = rows.evaluate_all("rows => rows.map(row => row.id)")
        assert before == [FAILED.key, *KEYS]
        tab.get_by_role("searchbox", name="Filter runs").fill("AMD quick.1")
        visible = rows.evaluate_all("rows => rows.filter(row => !row.hidden).map(row => row.id)")
        assert visible == [key for key in before if "quick.1" in key]
        tab.get_by_role("searchbox").fill("")
        title = tab.get_by_role("button", name="run", exact=True)
        for direction, order in (
            ("ascending", sorted(before)),
            ("descending", sorted(before)[::-1]),
        ):
            title.click()
            assert rows.evaluate_all("rows => rows.map(row => row.id)") == order
            assert tab.locator("#run-table th[aria-sort]").get_attribute("aria-sort") == direction
        tab.get_by_role("button", name="loss by epoch").click()  # 0.0625 has more digits than 0.5
        losses = rows.evaluate_all("rows => rows.map(row => row.cells[5].textContent.trim())")
        assert losses == ["–", "–", "0.0625", "0.5"]
        tab.get_by_role("button", name="minutes").click()  # as numbers: 0.4, 9 and 10
        order = [FAILED.key, *(KEYS[place] for place in (0, 2, 1))]
        assert rows.evaluate_all("rows => rows.map(row => row.id)") == order
        assert messages == []
