"""Thresholds of a model, from people on whom the model was not trained.

All pictures of a query are compared, and those of its gallery that show a person of the query. The
others may be distractors, several people under one name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from ianet.datasets.listed import KINDS
from ianet.datasets.listing import split_columns
from ianet.datasets.source import ARCHIVES
from ianet.description import LATER
from ianet.feature_table import FeatureTable, Labelled, check_comparable, check_labels
from ianet.open_set import OpenSetSearch, SearchThreshold, search_open_set
from ianet.options import Cameras, check_types
from ianet.pictures import Picture
from ianet.verification import (
    Advance,
    Threshold,
    Verification,
    check_rates,
    count_pairs,
    verify,
)

LIST = "images.csv"
"""Name of the list beside pictures, which the reader `listed` reads and other readers do not."""


class Judgement(NamedTuple):
    """Whether two pictures show one person.

    Attributes:
        distance: of the two.
        is_same: whether the distance is below the threshold.
        threshold: that decides.
        same_farther: share of the known pairs of the same person that are at least as far apart.
        other_nearer: share of the known pairs of other persons that are nearer.
    """

    distance: float
    is_same: bool
    threshold: Threshold
    same_farther: float
    other_nearer: float


@dataclass(frozen=True)
class Calibration:
    """What is known of the distances between pictures that a model has not been trained on.

    Attributes:
        dataset: whose query and gallery were compared.
        cameras: "respect" leaves out pairs of a person from one camera.
        pairs: of pictures.
        search: in the gallery; None where no limit was given.
        flip: whether the features are means with those of the mirrored pictures. The thresholds
            hold for such features alone.

    Raises:
        ValueError: a wrong value.
    """

    dataset: str
    cameras: Cameras
    pairs: Verification
    search: OpenSetSearch | None
    flip: bool = field(default=False, metadata={LATER: True})

    def __post_init__(self) -> None:
        check_types(self)

    def judge(self, distance: float, far: float | None = None) -> Judgement:
        """Return whether two pictures at a distance show one person.

        Args:
            distance: from 0 to 2.
            far: limit of the false-accept rate; the first of the calibration by default.

        Raises:
            ValueError: there is no threshold for the limit.
        """
        threshold = _choose_threshold(self.pairs.thresholds, far)
        same, other = self.pairs.curve.shares(distance)
        return Judgement(distance, distance < threshold.distance.value, threshold, 1 - same, other)

    def find_search_threshold(self, far: float | None = None) -> SearchThreshold | None:
        """Return the threshold of searches in a gallery, None where none is known.

        Args:
            far: limit of the false-accept rate; the first of the calibration by default.

        Raises:
            ValueError: there are thresholds, and none for the limit.
        """
        return None if self.search is None else _choose_threshold(self.search.thresholds, far)


Limit = TypeVar("Limit", Threshold, SearchThreshold)


def _choose_threshold(thresholds: Sequence[Limit], far: float | None) -> Limit:
    """Return the threshold for a limit of the false-accept rate, or else the first."""
    for threshold in thresholds:
        if far in (None, threshold.far):
            return threshold
    rates = ", ".join(f"{threshold.far:g}" for threshold in thresholds)
    raise ValueError(
        f"no threshold is known for a false-accept rate of {far:g}: choose one of {rates}"
    )


class PictureLabels(NamedTuple):
    """The labels of pictures whose features are not computed yet."""

    paths: list[str]
    persons: list[str]
    cameras: list[str]

    @classmethod
    def of(cls, pictures: Sequence[Picture]) -> PictureLabels:
        """Return the labels of pictures."""
        return cls(
            [picture.path for picture in pictures],
            [picture.person for picture in pictures],
            [picture.camera for picture in pictures],
        )


class _Labels(NamedTuple):
    """The persons and cameras of the pictures that are compared with each other.

    Attributes:
        persons: of them.
        cameras: of them; None where pairs from any cameras count.
        gallery: whether each picture of the gallery is one of them.
    """

    persons: list[str]
    cameras: list[str] | None
    gallery: list[bool]


def check_limits(
    query: Labelled,
    gallery: Labelled,
    *,
    cameras: Cameras,
    fars: Sequence[float],
    search_fars: Sequence[float],
) -> int:
    """Refuse what `calibrate` would refuse, before the features are computed.

    Returns:
        How many steps `calibrate` takes.

    Raises:
        ValueError: as `calibrate`, but for features.
    """
    labels = _choose(query, gallery, cameras)
    _, other = count_pairs(labels.persons, labels.cameras)
    check_rates(fars, other, "pairs of other persons")
    check_rates(search_fars, len(query.paths), "queries")
    return 2 * len(labels.persons) + (len(query.paths) if search_fars else 0)


def calibrate(
    query: FeatureTable,
    gallery: FeatureTable,
    *,
    dataset: str,
    cameras: Cameras = "respect",
    fars: Sequence[float] = (1e-3,),
    search_fars: Sequence[float] = (),
    advance: Advance = lambda _: None,
) -> Calibration:
    """Return the thresholds of features of one model.

    Args:
        query, gallery: with the person of each picture.
        dataset: name of their data set.
        cameras: see `Calibration`.
        fars: limits of the false-accept rate for two pictures, see `ianet.verification`.
        search_fars: limits for searches in the gallery, see `ianet.open_set`.
        advance: takes the number of steps that are done, of as many as `check_limits` returns.

    Raises:
        ValueError: a person or a camera is unknown, or as `check_comparable`, `verify` and
            `search_open_set`.
    """
    check_comparable(query, gallery)
    labels = _choose(query, gallery, cameras)
    pairs = verify(
        np.concatenate([query.features, gallery.features[labels.gallery]]),
        labels.persons,
        labels.cameras,
        fars=fars,
        advance=advance,
    )
    search = None
    if search_fars:
        # A gallery picture of the query's person and camera is left out. If each picture is a
        # camera of its own, that is the query's own picture.
        seen = "cameras" if cameras == "respect" else "paths"
        search = search_open_set(
            query.features,
            gallery.features,
            query.persons,
            gallery.persons,
            getattr(query, seen),
            getattr(gallery, seen),
            fars=search_fars,
            advance=advance,
        )
    return Calibration(dataset, cameras, pairs, search, query.flip)


def refuse_trained(table: pd.DataFrame, source: Path) -> None:
    """Raise ValueError if persons of the query are also in the training split of a data set.

    Args:
        table: of a `Listing`.
        source: of the data set, for the message.
    """
    split = table[split_columns(table)[0]]
    persons = sorted(set(table.person[split == "train"]) & set(table.person[split == "query"]))
    if persons:
        raise ValueError(
            f"{source} has {len(persons):,} persons of the query in its training split, such as "
            f"{persons[0]}: a threshold needs people on whom the model was not trained"
        )


def describe_doubt(training: str, table: pd.DataFrame, source: Path) -> str:
    """Return why a model may have been trained on people of the query, or "".

    A set with one split, whose training people the query lacks, gives no doubt. Of several splits
    the first is scored, and a model does not tell on which split it was trained. A list that was
    not read may name the people of the training.

    Args:
        training: name of the data set on which the model was trained.
        table: of a `Listing`.
        source: of the data set.
    """
    columns = split_columns(table)
    if len(columns) > 1:
        return (
            f"{source} has {len(columns)} splits, and the first is scored: scores are too good for "
            "a model that was trained on another one"
        )
    split = table[columns[0]]
    train = set(table.person[split == "train"])
    if not train and (source / LIST).is_file():
        return (
            f"{source / LIST} may name a training split, and the reader does not read the list: "
            "leave out --reader to score the test split alone"
        )
    if _simplify(source.name) != _simplify(training):
        return ""
    if train and train.isdisjoint(table.person[split == "query"]):
        return ""
    reason = "has people of the query in its training split" if train else "has no training split"
    return (
        f"the model was trained on {training}, and {source} {reason}: thresholds and scores are "
        "too good for people of the training"
    )


def _simplify(name: str) -> str:
    """Return the name of a data set or of its source without suffix, signs and case."""
    lower = name.lower()
    suffix = next((each for each in (*ARCHIVES, *KINDS) if lower.endswith(each)), "")
    return re.sub(r"[\W_]", "", lower.removesuffix(suffix))


def _choose(query: Labelled, gallery: Labelled, cameras: Cameras) -> _Labels:
    for table in (query, gallery):
        check_labels(table, cameras)
    persons, paths = set(query.persons), set(query.paths)
    mask = [
        person in persons and path not in paths
        for person, path in zip(gallery.persons, gallery.paths, strict=True)
    ]
    places = np.flatnonzero(mask)
    return _Labels(
        [*query.persons, *(gallery.persons[place] for place in places)],
        [*query.cameras, *(gallery.cameras[place] for place in places)]
        if cameras == "respect"
        else None,
        mask,
    )
