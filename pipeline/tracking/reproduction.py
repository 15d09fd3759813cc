"""The MLflow run of the whole reproduction, and links to all runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import mlflow
from mlflow.exceptions import MlflowException

from pipeline.plan.records import read_record
from pipeline.plan.runs import RESULTS, Run
from pipeline.secrecy import hide_secrets
from pipeline.tracking.server import INTERFACE, connect, create, find, find_experiment, first_line

REPRODUCTION = "reproduction"

log = logging.getLogger(__name__)


def find_run_pages(runs: Sequence[Run]) -> dict[Run, str]:
    """The page of each run that MLflow holds; none where MLflow does not answer."""
    try:
        connect()
        uri = mlflow.get_tracking_uri()
        root = hide_secrets(uri) if uri.startswith("http") else INTERFACE
        pages = {}
        for run in runs:
            run_id = find({"id": read_record(run)["id"]})
            if run_id is not None:
                path = f"experiments/{find_experiment()}/runs/{run_id}"
                pages[run] = f"{root}/#/{path}?workflowType=machine_learning"
        return pages
    except (MlflowException, ConnectionError) as error:
        log.warning("MLflow does not answer (%s): the page links to no run", first_line(error))
        return {}


def sync_reproduction(rows: Mapping[Run, Mapping[str, str]]) -> None:
    """Send all results to the one MLflow run of the reproduction, and tag runs with their tables.

    Args:
        rows: for each run of the plan, the tables that name it, with the label of its row.
    """
    connect()
    client = mlflow.MlflowClient()
    for run, tables in rows.items():
        record = read_record(run)
        run_id = find({"id": record["id"]})
        if run_id is None:
            continue
        tags = client.get_run(run_id).data.tags
        for table, label in tables.items():
            if tags.get(f"table.{table}") != label:
                client.set_tag(run_id, f"table.{table}", label)
    run_id = find({"run": REPRODUCTION})
    if run_id is None:
        run_id = create(REPRODUCTION, {"run": REPRODUCTION})
    client.log_artifacts(run_id, str(RESULTS), RESULTS.name)
    client.set_terminated(run_id, "FINISHED")
