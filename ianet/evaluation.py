"""How well features find the people of a data set again, with intervals over identities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from ianet.comparison import Interval, bound_score
from ianet.datasets.listing import JUNK, Listing, split_columns
from ianet.feature_table import FeatureTable, check_comparable, check_labels, concatenate
from ianet.options import Cameras, Scoring, refuse_unknown
from ianet.pictures import Picture
from ianet.protocols import TOP, score_queries
from ianet.reranking import KReciprocal

Pool = Literal["none", "mean"]


class Evaluation(NamedTuple):
    """Scores of a query and a gallery.

    Attributes:
        scores: name (top-1, top-5, top-10, mAP, mINP) to the mean over the queries that have a
            match, with its 95 % interval over identities. A single-shot protocol has top-k alone.
        cmc: (50,), the CMC curve.
        queries, identities: of which the means are.
        without_match: queries of whose person the gallery has no image that counts.
        gallery: its size.
    """

    scores: dict[str, Interval]
    cmc: NDArray[np.float64]
    queries: int
    identities: int
    without_match: int
    gallery: int


def list_pictures(listing: Listing, split: str) -> list[Picture]:
    """Return the pictures of query or gallery of a data set; of several splits of the first."""

    def open_image(path: str) -> Image.Image:
        try:
            return listing.open(path)
        except ValueError as error:  # which names the image again
            raise ValueError(str(error.__cause__ or error)) from error

    table = listing.table
    rows = table[table[split_columns(table)[0]] == split]
    columns = (rows[name].astype(str) for name in ("path", "person", "camera"))
    return [
        Picture(path, partial(open_image, path), person, camera)
        for path, person, camera in zip(*columns, strict=True)
    ]


def list_test(listing: Listing, source: Path) -> tuple[list[Picture], list[Picture]]:
    """Return query and gallery, of which a picture may be in both.

    Args:
        listing: of a data set.
        source: of the data set, for the message.

    Raises:
        ValueError: a part without a picture, or a picture of two persons or cameras; one line.
    """
    query, gallery = list_pictures(listing, "query"), list_pictures(listing, "gallery")
    if not (query and gallery):
        raise ValueError(f"{source} has no image in query or gallery: `ianet validate` says more")
    pictures: dict[str, Picture] = {}
    for picture in (*query, *gallery):
        first = pictures.setdefault(picture.path, picture)
        labels = [(each.person, each.camera) for each in (first, picture)]
        if labels[0] != labels[1]:
            raise ValueError(
                f"{source} lists {picture.path} as (person, camera) {labels[0]} and {labels[1]}: "
                "keep the right row"
            )
    return query, gallery


def embed_test(
    query: list[Picture],
    gallery: list[Picture],
    embed: Callable[[list[Picture]], Iterable[FeatureTable]],
) -> tuple[FeatureTable, FeatureTable]:
    """Return the features of query and gallery. A picture of both is embedded once.

    Args:
        query, gallery: of `list_test`.
        embed: gives the features of pictures, such as `Model.embed_batches`.

    Raises:
        ValueError: of a part not one picture was decoded; one line.
    """
    pictures = list({picture.path: picture for picture in (*query, *gallery)}.values())
    table = concatenate(embed(pictures))
    parts = [table.select(picture.path for picture in part) for part in (query, gallery)]
    if not all(map(len, parts)):
        raise ValueError("not one picture of query or gallery can be decoded")
    return parts[0], parts[1]


def evaluate(
    query: FeatureTable,
    gallery: FeatureTable,
    *,
    cameras: Cameras = "respect",
    pool: Pool = "none",
    reranking: KReciprocal | None = None,
    scoring: Scoring = "ranking",
) -> Evaluation:
    """Return the scores of features of one model.

    Args:
        query, gallery: with the person of each picture. Pictures of person -1 are junk, see
            `ianet.retrieval`.
        cameras: "respect": a match is from another camera than the query. "ignore": a match may be
            from any camera, and only the query's own picture is left out, by its path.
        pool: "mean" takes the pictures of a query's person that are in the same folder and from
            the same camera, such as a tracklet, for one: see `pool_tracklets`. Pictures of people
            without a query stay apart, as distractors are many people under one name.
        reranking: to rank by k-reciprocal neighbours, see `ianet.reranking`.
        scoring: the protocol, see `ianet.protocols`.

    Raises:
        ValueError: an unknown name, a person or a camera that is unknown, no query has a match,
            re-ranking of a single-shot protocol, or as `check_comparable`.
    """
    check_comparable(query, gallery)
    refuse_unknown("pool", pool, get_args(Pool))
    for table in (query, gallery):
        check_labels(table, cameras)
    if pool == "mean":
        searched = set(query.persons)
        query, gallery = pool_tracklets(query, searched), pool_tracklets(gallery, searched)
    query_ids, gallery_ids = _encode(query.persons, gallery.persons)
    # A gallery picture of the query's person and camera is left out. If each picture is a camera
    # of its own, that is the query's own picture.
    query_cameras, gallery_cameras = (
        _encode(query.cameras, gallery.cameras)
        if cameras == "respect"
        else _encode(query.paths, gallery.paths)
    )
    cmc, means = score_queries(
        scoring,
        reranking=reranking,
        query_features=query.features,
        gallery_features=gallery.features,
        query_ids=query_ids,
        gallery_ids=gallery_ids,
        query_cameras=query_cameras,
        gallery_cameras=gallery_cameras,
    )
    values = pd.concat(
        [cmc[list(TOP)].astype(float).rename(columns="top-{}".format), means], axis=1
    )
    persons = [query.persons[row] for row in values.index]
    scores = {name: bound_score(values[name], persons) for name in values.columns}
    return Evaluation(
        scores,
        cmc.mean().to_numpy(dtype=float),
        queries=len(values),
        identities=len(set(persons)),
        without_match=len(query) - len(values),
        gallery=len(gallery),
    )


def pool_tracklets(table: FeatureTable, persons: Set[str]) -> FeatureTable:
    """Return a picture for each person, camera and folder: the first, with the mean feature.

    Features get a length of 1 before the mean, so that each picture counts alike.

    Args:
        table: of the pictures.
        persons: whose pictures are pooled. Each picture of another person stays.
    """
    keys = [
        (person, camera, PurePosixPath(path).parent.as_posix() if person in persons else row)
        for row, (person, camera, path) in enumerate(
            zip(table.persons, table.cameras, table.paths, strict=True)
        )
    ]
    codes, _ = pd.factorize(pd.Index(keys, tupleize_cols=False))
    length = np.linalg.norm(table.features, axis=1, keepdims=True)
    units = table.features / np.where(length == 0, 1, length)
    _, first, counts = np.unique(codes, return_index=True, return_counts=True)
    features = np.zeros((len(first), table.features.shape[1]))
    np.add.at(features, codes, units)
    return FeatureTable(
        (features / counts[:, None]).astype(np.float32),
        [table.paths[row] for row in first],
        [table.persons[row] for row in first],
        [table.cameras[row] for row in first],
        table.model,
        flip=table.flip,
    )


def _encode(query: list[str], gallery: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return numbers for texts, from 0 in order of appearance; "-1" stays -1, which is junk."""
    codes, _ = pd.factorize(pd.Series([*query, *gallery], dtype=object))
    numbers = np.where(np.array([*query, *gallery], dtype=object) == str(JUNK), -1, codes)
    return numbers[: len(query)].astype(np.int64), numbers[len(query) :].astype(np.int64)
