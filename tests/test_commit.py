"""The commit that results are made with: in a repository, with changes, and without git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.commit import find_commit

CODE_FILES = (
    "ianet/network.py",
    "pipeline/training/launch.py",
    "experiments/table4.yaml",
    "params.yaml",
)
OTHER_FILES = ("README.md", "tests/test_network.py", "docs/results.md")


def git(*arguments: str) -> str:
    """What git prints."""
    words = ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder, in which git has no options of a user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def commit() -> str:
    """The short name of the commit of a small repository, which is the working folder."""
    for name in (*CODE_FILES, *OTHER_FILES):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("1")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    return git("rev-parse", "HEAD")[:7]


def test_a_commit_without_changes(commit: str) -> None:
    assert find_commit() == commit


@pytest.mark.parametrize("name", [*CODE_FILES, "ianet/new.py"])
def test_an_edit_of_code_is_told(commit: str, name: str) -> None:
    Path(name).write_text("2")
    assert find_commit() == f"{commit} with changes"


def test_code_that_is_missing_is_told(commit: str) -> None:
    Path(CODE_FILES[0]).unlink()
    assert find_commit() == f"{commit} with changes"


def test_an_edit_of_what_decides_no_result_is_no_change(commit: str) -> None:
    for name in (*OTHER_FILES, "new.py"):
        Path(name).write_text("2")
    assert find_commit() == commit


def test_no_commit_without_a_repository_or_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_commit() == "unknown"
    git("init", "--quiet")
    assert find_commit() == "unknown"
    Path("params.yaml").write_text("1")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    assert find_commit() != "unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_commit() == "unknown"
