"""The documents: every page is in the site, and every link leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import yaml
from browser import find_violations, needs_browser, open_page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


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


@pytest.mark.slow
def test_the_site_is_built_strictly(project: Path) -> None:
    """A page that is missing or a link to a heading that is not there fails the build."""
    complete = build(project)
    assert complete.returncode == 0, complete.stdout + complete.stderr
    library = (project / "build/site/api/index.html").read_text()
    assert "ianet.load" in library
    assert "embed" in library  # from a docstring
    start = project / "docs/index.md"
    before = start.read_text()
    start.write_text(before + "\n[gone](architecture.md#no-such-heading)\n")
    assert build(project).returncode != 0
    start.write_text(before)


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_and_axe_find_nothing_wrong(
    project: Path, width: int, scheme: Literal["dark", "light"]
) -> None:
    assert build(project).returncode == 0
    site = project / "build/site"
    problems = {}
    with open_page("", width, scheme) as (shown, _):
        for path in sorted(site.rglob("index.html")):
            shown.goto(path.as_uri())
            assert shown.evaluate("document.documentElement.scrollWidth") <= width, path
            problems[path.parent.name] = find_violations(shown)
    assert len(problems) == len(pages())
    assert {name: found for name, found in problems.items() if found} == {}
