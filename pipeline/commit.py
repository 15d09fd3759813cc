"""The commit of the code that makes results."""

from __future__ import annotations

import subprocess

from pipeline.config.experiments import EXPERIMENTS
from pipeline.config.settings import PARAMS

CODE = ("ianet", "pipeline", str(EXPERIMENTS), str(PARAMS))  # what decides results


def find_commit() -> str:
    """The short name of the commit, and whether the code differs from the commit.

    Returns:
        "unknown" without git, or outside a repository with a commit.
    """
    name = _git("rev-parse", "--short", "HEAD")
    if not name:
        return "unknown"
    return f"{name} with changes" if _git("status", "--porcelain", "--", *CODE) else name


def find_changes(*paths: str) -> list[str]:
    """The committed files below paths that differ from the commit; none outside a repository."""
    lines = _git("status", "--porcelain", "--untracked-files=no", "--", *paths).splitlines()
    return [line.split(maxsplit=1)[1] for line in lines]


def find_new_files(*paths: str) -> list[str]:
    """The files below paths that git neither holds nor ignores; none outside a repository."""
    return _git("ls-files", "--others", "--exclude-standard", "--", *paths).splitlines()


def _git(*arguments: str) -> str:
    """What git prints; nothing where git fails or is missing."""
    words = ["git", "--no-optional-locks", *arguments]
    try:
        process = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return "" if process.returncode else process.stdout.strip()
