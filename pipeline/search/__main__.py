"""A search as a stage of DVC, then the page of all results.

    python -m pipeline.search sigma

`Ctrl-C` and SIGTERM stop DVC and its stages; the same command resumes.
"""

from __future__ import annotations

from pipeline.ending import explain_end, make_page
from pipeline.plan.dvc_yaml import SEARCH_PIPELINE, is_stale, render, write
from pipeline.plan.plan import load_plan
from pipeline.shell import DVC, LOGS, command, lock_work, parser, run_command


def main() -> None:
    options = parser(__doc__, "pipeline.search")
    options.add_argument("name", help="experiments/search_<name>.yaml")
    name = options.parse_args().name
    plan = load_plan()
    plan.search(name)
    if any(is_stale(path, text) for path, text in render(plan).items()):
        with lock_work(LOGS / "repro.lock", "making results in this folder"):
            write(plan)
    with explain_end():
        run_command(*DVC, "repro", f"{SEARCH_PIPELINE}:search@{name}")
        make_page()


if __name__ == "__main__":
    command(main)
