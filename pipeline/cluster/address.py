"""Which Ray is used: the cluster that params.yaml or RAY_ADDRESS names, or one of this machine.

Apart from `session`: importing Ray takes a second, which an evaluation on this machine need not
spend.
"""

from __future__ import annotations

import os

from pipeline.config.settings import Settings

ADDRESS = "RAY_ADDRESS"  # of a Ray that trainings share; Ray itself reads this variable
LOCAL_RAY = "IANET_OWN_RAY"  # variable: a command of this project started that Ray, on this machine
CLIENT = "ray://"  # of a cluster that this machine is no node of


def choose(settings: Settings) -> None:
    """Let RAY_ADDRESS be the cluster of params.yaml, unless the variable names one already."""
    if not os.environ.get(ADDRESS):
        os.environ.pop(ADDRESS, None)  # to Ray and to us a variable that is empty names none
        if settings.cluster.address:
            os.environ[ADDRESS] = settings.cluster.address


def is_shared() -> bool:
    """Whether a Ray is named, which other commands may use too."""
    return bool(os.environ.get(ADDRESS))


def is_cluster() -> bool:
    """Whether a Ray is named that may have other machines than this one."""
    return is_shared() and LOCAL_RAY not in os.environ


def is_client() -> bool:
    """Whether the cluster is reached from a machine that is no node of it."""
    return os.environ.get(ADDRESS, "").startswith(CLIENT)
