"""The documents as a site: every page is there, every link leads somewhere, and looks are right."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from browser import AA, VIEWS, Scheme, find_faults, find_violations, needs_browser, open_page
from page_samples import report
from playwright.sync_api import Browser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Each width and each scheme: the theme reads the scheme when a page is loaded, and axe takes long.
READ_BY_AXE = ((1280, "light"), (390, "dark"))
BROKEN = "images => images.some(image => !image.complete || image.naturalWidth === 0)"
LINES = """cells => cells.map(cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return new Set([...range.getClientRects()].map(each => each.top)).size;
})"""


def pages() -> set[str]:
    [*entries] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    return {page for entry in entries for page in entry.values()}


def test_every_page_is_in_the_contents() -> None:
    assert pages() == {path.name for path in DOCS.glob("*.md")}


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text())
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert links
    assert not missing


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the site is made of."""
    folder = tmp_path_factory.mktemp("site")
    for name in ("docs", "ianet"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(ROOT / "mkdocs.yml", folder)
    return folder


def build(project: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(project: Path) -> Path:
    """The site, built strictly."""
    complete = build(project)
    assert complete.returncode == 0, complete.stdout + complete.stderr
    return project / "build/site"


@pytest.mark.slow
def test_the_library_is_in_the_site(site: Path) -> None:
    library = (site / "api/index.html").read_text()
    assert "ianet.load" in library
    assert "embed" in library  # from a docstring


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("width", "scheme"), READ_BY_AXE)
def test_a_browser_and_axe_find_nothing_wrong(
    browser: Browser, site: Path, width: int, scheme: Scheme
) -> None:
    """Each page is loaded in one width, and then shown in the other as well."""
    problems = {}
    widths = sorted({width for width, _ in VIEWS}, key=lambda each: each != width)
    with open_page(browser, "", width, scheme) as (tab, _):
        for path in sorted(site.rglob("index.html")):
            tab.set_viewport_size({"width": width, "height": 800})
            tab.goto(path.as_uri())
            # The theme's header, contents and code have a contrast of AA, not of AAA.
            problems[path.parent.name, "axe"] = find_violations(tab, AA)
            for each in widths:
                tab.set_viewport_size({"width": each, "height": 800})
                faults = find_faults(tab, each, scheme, "article")
                if tab.locator("article img:visible").evaluate_all(BROKEN):
                    faults.append("an image is missing")
                problems[path.parent.name, each] = faults
    assert len(problems) == len(pages()) * (1 + len(widths))
    assert {name: each for name, each in problems.items() if each} == {}


@pytest.mark.slow
@needs_browser
def test_a_wide_table_scrolls_beside_its_first_column(browser: Browser, site: Path) -> None:
    """On a phone. An interval, such as +0.5 [-1.4, +2.4], stays in one line."""
    with open_page(browser, "", 390) as (tab, _):
        tab.goto((site / "results/index.html").as_uri())
        box = tab.locator(".md-typeset__scrollwrap").first
        assert box.evaluate("box => box.scrollWidth > box.clientWidth + 100")
        assert box.get_attribute("tabindex") == "0"  # by keys, too
        intervals = box.locator("td", has_text="[").evaluate_all(LINES)
        assert len(intervals) == 4  # of Table 4f
        assert set(intervals) == {1}
        box.evaluate("box => box.scrollLeft = 100")
        first, second = (box.locator("td").nth(place).bounding_box() for place in (0, 1))
        assert first is not None
        assert second is not None
        assert 0 <= first["x"] < 1
        assert second["x"] < first["x"] + first["width"]  # behind the first


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_a_picture_of_the_report_has_no_fault(browser: Browser, width: int, scheme: Scheme) -> None:
    with open_page(browser, report(), width, scheme) as (tab, _):
        assert find_faults(tab, width, scheme, "main") == []


@needs_browser
def test_faults_of_a_picture_are_seen(browser: Browser) -> None:
    with open_page(browser, "", 390, "dark") as (tab, _):
        for style, fault in (
            ("html { background: white }", "the ground has a brightness of 255, which is not dark"),
            ("p { width: 500px }", "outside: A page."),
            ("p { width: 500px }", "the page is wider than 390 pixels"),
            ("p { font-size: 8px }", "small: A page."),
            ("html { background: black } p { color: #222 }", "0.0% of the pixels"),
        ):
            tab.set_content(f"<style>{style}</style><main><p>A page.</p></main>")
            faults = find_faults(tab, 390, "dark", "main")
            assert any(each.startswith(fault) for each in faults), faults


@pytest.mark.slow
def test_a_link_to_a_heading_that_is_not_there_fails_the_build(project: Path, site: Path) -> None:
    """Last, as the site is built anew."""
    start = project / "docs/index.md"
    start.write_text(start.read_text() + "\n[gone](architecture.md#no-such-heading)\n")
    assert build(project).returncode != 0
