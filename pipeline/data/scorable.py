"""Whether the images of a split can be scored."""

from __future__ import annotations

import pandas as pd


def has_match(images: pd.DataFrame, part: pd.Series, *, cameras: str) -> bool:
    """Whether any query has a gallery image of its person, from another camera.

    Args:
        images: person and camera of each image.
        part: "query", "gallery" or another part of each.
        cameras: "respect" or "ignore", see `pipeline.config.settings.Dataset`.
    """
    query, gallery = (
        images.loc[part == name, ["person", "camera"]].drop_duplicates()
        for name in ("query", "gallery")
    )
    pairs = query.merge(gallery, on="person")
    return bool((pairs.camera_x != pairs.camera_y).any() if cameras == "respect" else len(pairs))


def advise(dataset: str, held_out: int) -> str:
    """The message where no held-out query has a match."""
    return (
        f"none of the {held_out} held-out identities of {dataset} has images in query and gallery "
        "from two cameras, so neither `hold_out: true` of a recipe nor a search can be scored: "
        f"raise datasets.{dataset}.held_out in params.yaml, or add images of a second camera"
    )
