"""The documents: every page is in the site, and every link leads somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    """A page that is missing or a link to a heading that is not there fails the build."""
    for name in ("docs", "ianet"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    command = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]

    def build() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    complete = build()
    assert complete.returncode == 0, complete.stdout + complete.stderr
    library = (tmp_path / "build/site/api/index.html").read_text()
    assert "ianet.load" in library
    assert "embed" in library  # from a docstring
    start = tmp_path / "docs/index.md"
    start.write_text(start.read_text() + "\n[gone](architecture.md#no-such-heading)\n")
    assert build().returncode != 0
