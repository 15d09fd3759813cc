"""Which images of a data set may match, and whether those of a split can be scored."""

from __future__ import annotations

import pandas as pd

from ianet.options import Cameras
from ianet.validation import have_matches


def camera_codes(images: pd.DataFrame, cameras: Cameras) -> pd.Series:
    """The camera of each image, for scores: no match has the person and the camera of its query.

    Where cameras are ignored, each picture is a camera of its own. Then only the query's own
    picture is no match, which the gallery holds too if the reader is `persons`.

    Args:
        images: path and camera of each image.
        cameras: see `ianet.options.Cameras`.
    """
    if cameras == "respect":
        return images.camera
    return pd.Series(pd.factorize(images.path)[0], images.index)


def has_match(images: pd.DataFrame, part: pd.Series, *, cameras: Cameras) -> bool:
    """Whether any query has a gallery image of its person that may be a match.

    Args:
        images: path, person and camera of each image.
        part: "query", "gallery" or another part of each.
        cameras: see `ianet.options.Cameras`.
    """
    images = images.assign(camera=camera_codes(images, cameras))
    return bool(have_matches(images[part == "query"], images[part == "gallery"]).any())


def advise(dataset: str, held_out: int) -> str:
    """The message where no held-out query has a match."""
    return (
        f"none of the {held_out} held-out identities of {dataset} has images in query and gallery "
        "from two cameras, so neither `hold_out: true` of a recipe nor a search can be scored: "
        f"raise datasets.{dataset}.held_out in params.yaml, or add images of a second camera"
    )
