"""How a result says that cameras were ignored."""

from __future__ import annotations

from ianet.options import Cameras


def label_cameras(cameras: Cameras) -> str:
    """Return what follows a score or its data set: that cameras were ignored, else nothing."""
    return ", cameras ignored" if cameras == "ignore" else ""
