"""The commit that results are made with: in a repository, with changes, and without git."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.commit import find_commit


def test_the_commit_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program git is a stand-in, or missing."""
    git = tmp_path / "git"

    def install(status: str) -> None:
        git.write_text(f"#!/bin/sh\ncase $2 in rev-parse) echo abc1234;; status) {status};; esac\n")
        git.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    install("true")
    assert find_commit() == "abc1234"
    install("echo ' M ianet/network.py'")
    assert find_commit() == "abc1234 with changes"
    git.write_text("#!/bin/sh\nexit 128\n")
    assert find_commit() == "unknown"
    git.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_commit() == "unknown"
