"""Send to MLflow what it lacks: trained runs, their scores and models, searches and results.

    python -m pipeline.sync                           everything
    python -m pipeline.sync synthetic.base.quick.0    one run

A server that was away while trainings ran gets what it missed. What the server holds is not sent
again. results/report.html is made anew, as the page links to the runs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial

from pipeline.config.settings import SettingsError
from pipeline.ending import make_page
from pipeline.plan.dvc_yaml import SEARCH_RESULTS
from pipeline.plan.plan import Plan, load_plan
from pipeline.plan.runs import RECORD, RUNS, parse_run
from pipeline.shell import LOGS, command, format_runs, lock_work, parser
from pipeline.tracking.search import sync_search_results
from pipeline.tracking.server import connect, explain_failures
from pipeline.tracking.training import sync_run

log = logging.getLogger("pipeline.sync")


def main() -> None:
    options = parser(__doc__, "pipeline.sync")
    options.add_argument("keys", nargs="*", help="of runs; all if none is named")
    keys = options.parse_args().keys
    plan = load_plan()
    runs = [parse_run(key, plan.settings) for key in keys]
    if not keys:
        for path in sorted(RUNS.glob(f"*/{RECORD}")):
            try:
                runs.append(parse_run(path.parent.name, plan.settings))
            except SettingsError as error:
                log.warning("%s is left out: %s", path.parent, error)
    connect()
    works: dict[str, Callable[[], object]] = {run.key: partial(sync_run, run) for run in runs}
    searches = [] if keys else find_searches(plan)
    for name in searches:
        folder = SEARCH_RESULTS / name
        works[str(folder)] = partial(sync_search_results, name, plan.searches[name], folder)
    errors = sync_all(works)
    if not keys:
        with lock_work(LOGS / "repro.lock", "making results in this folder"):
            make_page()  # its stage sends the results
    if errors:
        lines = "\n".join(f"  {name}: {error}" for name, error in errors.items())
        raise SettingsError(f"{len(errors)} of {len(works)} could not be sent:\n{lines}")
    print(f"MLflow holds {format_runs(len(runs))}; searches: {len(searches)}")


def find_searches(plan: Plan) -> list[str]:
    """The names of the searches with results."""
    return [name for name in plan.searches if (SEARCH_RESULTS / name / "trials.json").exists()]


def sync_all(works: Mapping[str, Callable[[], object]]) -> dict[str, Exception]:
    """Send all, also after an error of a file.

    Args:
        works: what sends a run or a search, by its name.

    Returns:
        The errors of files that are missing or damaged, and of records that MLflow refuses, by the
        names.

    Raises:
        ConnectionError: MLflow went away.
    """
    errors: dict[str, Exception] = {}
    for name, work in works.items():
        try:
            with explain_failures():
                work()
            log.info("%s", name)
        except (ValueError, FileNotFoundError) as error:
            errors[name] = error
    return errors


if __name__ == "__main__":
    command(main)
