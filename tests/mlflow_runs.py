"""What MLflow holds, for tests of what is sent there."""

from __future__ import annotations

import mlflow
from mlflow.entities import Run as Tracked

Sent = list[list[tuple[int, str]]]


def tracked() -> list[Tracked]:
    """The runs that MLflow holds, the newest first."""
    experiment = mlflow.get_experiment_by_name("ianet")
    assert experiment is not None
    return list(mlflow.MlflowClient().search_runs([experiment.experiment_id]))


def metric(run_id: str, name: str) -> list[tuple[int, float]]:
    """The steps and values of a metric, in the order in which they came."""
    history = mlflow.MlflowClient().get_metric_history(run_id, name)
    return [(entry.step, entry.value) for entry in history]
