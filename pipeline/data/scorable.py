"""Whether the images of a split can be scored."""

from __future__ import annotations

import pandas as pd

from ianet.options import Cameras
from ianet.validation import have_matches
from pipeline.data.cameras import number_cameras


def has_match(images: pd.DataFrame, part: pd.Series, *, cameras: Cameras) -> bool:
    """Whether any query has a gallery image of its person that may be a match.

    Args:
        images: path, person and camera of each image.
        part: "query", "gallery" or another part of each.
        cameras: see `ianet.options.Cameras`.
    """
    images = images.assign(camera=number_cameras(images, cameras))
    return bool(have_matches(images[part == "query"], images[part == "gallery"]).any())


def advise(dataset: str, held_out: int) -> str:
    """The message where no held-out query has a match."""
    return (
        f"none of the {held_out} held-out identities of {dataset} has images in query and gallery "
        "from two cameras, so neither `hold_out: true` of a recipe nor a search can be scored: "
        f"raise datasets.{dataset}.held_out in params.yaml, or add images of a second camera"
    )
