"""How a command ends that makes results: with the page, and the files that git holds otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.commit import find_changes, find_new_files
from pipeline.shell import run_command

RESULTS = "results"  # where such a command makes files, which are to be committed
COMMITTED = (RESULTS, "dvc.yaml", "dvc.lock", "searches")  # what the command writes and git holds


@contextmanager
def explain_end() -> Iterator[None]:
    """Say how many committed files differ and how many files are new, however the work ends.

    After a failure the page is made first.
    """
    before = find_new_files(RESULTS)
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
        if files := set(find_new_files(RESULTS)).difference(before):
            print(
                f"new files below {RESULTS}: {len(files)}. `git add {RESULTS}` keeps them for a "
                f"commit. `git clean -nd {RESULTS}` lists what `git clean -fd {RESULTS}` would "
                "delete",
                flush=True,
            )


def make_page() -> None:
    """Make the page of what there is so far.

    Raises:
        SystemExit: the page cannot be made, and its process has said why.
    """
    run_command(sys.executable, "-m", "pipeline.stages.report")
