"""Send to MLflow what it lacks: of trained runs, their scores, searches and results.

    python -m pipeline.sync                           everything
    python -m pipeline.sync synthetic.base.quick.0    one run

A server that was away while trainings ran gets what it missed. What the server holds is not sent
again.
"""

from __future__ import annotations

import logging

from pipeline.config.settings import SettingsError
from pipeline.plan.dvc_yaml import SEARCH_RESULTS
from pipeline.plan.plan import load_plan
from pipeline.plan.runs import RECORD, RUNS, parse_run
from pipeline.shell import command, format_runs, parser
from pipeline.tracking.search import sync_search_results
from pipeline.tracking.server import connect
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
    for run in runs:
        sync_run(run)
        log.info("%s", run.key)
    searches = 0
    if not keys:
        for name, search in plan.searches.items():
            folder = SEARCH_RESULTS / name
            if (folder / "trials.json").exists():
                sync_search_results(name, search, folder)
                searches += 1
    print(f"MLflow holds {format_runs(len(runs))}; searches: {searches}")


if __name__ == "__main__":
    command(main)
