"""How a command ends that makes results: with the page, and the committed files that differ."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.commit import find_changes
from pipeline.shell import run_command

COMMITTED = ("results", "dvc.lock", "searches")  # what such a command writes and git holds


@contextmanager
def explain_end() -> Iterator[None]:
    """Say which committed files differ, however the work ends; after a failure make the page."""
    try:
        yield
    except SystemExit:
        with suppress(SystemExit):  # the page says its own error, and the work's is raised
            make_page()
        raise
    finally:
        if changes := find_changes(*COMMITTED):
            paths = " ".join(COMMITTED)
            print(
                f"committed files that differ now: {len(changes)}. `git diff --stat HEAD -- "
                f"{paths}` lists them, `git restore {paths}` takes them back",
                flush=True,
            )


def make_page() -> None:
    """Make the page of what there is so far.

    Raises:
        SystemExit: the page cannot be made, and its process has said why.
    """
    run_command(sys.executable, "-m", "pipeline.stages.report")
