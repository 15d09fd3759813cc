"""A split of one's own images into train, query and gallery, where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ianet.options import Cameras

LEAST_PERSONS = 4


def have_two_cameras(images: pd.DataFrame) -> pd.Series:
    """Whether two cameras or more see a person, by person."""
    return images.groupby("person").camera.nunique() > 1


def propose_split(images: pd.DataFrame, *, cameras: Cameras) -> pd.Series:
    """The split of each image: half of the persons who can be tested are for testing.

    A person can be tested who has two images, and with cameras to respect two cameras. The persons
    are drawn with a fixed seed. The first image of each test person and camera is a query, unless
    the camera has no other image of the person. A person without such a camera has one query.

    Args:
        images: person and camera of each image.
        cameras: "respect" or "ignore", see `ianet.options.Cameras`.

    Returns:
        "train", "query" or "gallery".

    Raises:
        ValueError: too few persons can be tested.
    """
    numbers = images.groupby("person").size()
    testable = have_two_cameras(images) if cameras == "respect" else numbers > 1
    persons = np.sort(testable[testable].index.to_numpy())
    if len(persons) < LEAST_PERSONS:
        raise ValueError(
            f"too few persons have two images ({len(persons)}): a data set needs {LEAST_PERSONS} "
            "such persons at least, to train and to test"
        )
    test_persons = np.random.default_rng(0).permutation(persons)[: len(persons) // 2]
    split = pd.Series("train", index=images.index)
    test = images[images.person.isin(test_persons)]
    split[test.index] = "gallery"
    places = test.groupby(["person", "camera"])
    queries = test[(places.cumcount() == 0) & (places.person.transform("size") > 1)]
    others = test[~test.person.isin(queries.person)].groupby("person").head(1)
    split[[*queries.index, *others.index]] = "query"
    return split
