"""Which Ray is used: the cluster that params.yaml or RAY_ADDRESS names, or one of this machine's.

Apart from `cluster`, as importing Ray takes a second that an evaluation here need not spend.
"""

from __future__ import annotations

import os

from pipeline.settings import Settings

ADDRESS = "RAY_ADDRESS"  # of a Ray that trainings share; Ray itself reads it
OURS = "IANET_RAY_IS_OURS"  # set where a command started that Ray on this machine
CLIENT = "ray://"  # of a cluster that this machine is no node of


def take(settings: Settings) -> None:
    """Let RAY_ADDRESS be the cluster of params.yaml, unless it names one already."""
    if settings.cluster.address is not None:
        os.environ.setdefault(ADDRESS, settings.cluster.address)


def alone() -> bool:
    """Whether no Ray is named that others may use, too."""
    return ADDRESS not in os.environ


def elsewhere() -> bool:
    """Whether a cluster is named that may have other machines than this."""
    return ADDRESS in os.environ and OURS not in os.environ


def is_client() -> bool:
    """Whether the cluster is reached from a machine that is no node of it."""
    return os.environ.get(ADDRESS, "").startswith(CLIENT)
