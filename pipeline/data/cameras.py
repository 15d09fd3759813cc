"""The camera of each image, by which a gallery image may or may not be a match."""

from __future__ import annotations

from typing import get_args

import pandas as pd

from ianet.options import Cameras, refuse_unknown


def number_cameras(images: pd.DataFrame, cameras: Cameras) -> pd.Series:
    """The camera of each image, for scores: no match has the person and the camera of its query.

    Where cameras are ignored, each picture is a camera of its own. Then only the query's own
    picture is no match, which the gallery holds too if the reader is `persons`.

    Args:
        images: path and camera of each image.
        cameras: see `ianet.options.Cameras`.

    Raises:
        ValueError: unknown `cameras`.
    """
    refuse_unknown("cameras", cameras, get_args(Cameras))
    if cameras == "respect":
        return images.camera
    return pd.Series(pd.factorize(images.path)[0], images.index)
