"""What is wrong with a data set, in plain words, before anything is trained on the set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import pandas as pd

from ianet.datasets.listing import SPLITS, Listing, split_columns
from ianet.options import Cameras, refuse_unknown

EXAMPLES = 5  # that are named of each problem


def find_table_problems(table: pd.DataFrame, cameras: Cameras = "respect") -> Iterator[str]:
    """Yield problems of identities, cameras and splits, a sentence for each.

    Args:
        table: see `Listing`.
        cameras: "ignore" if a match may be from the camera of the query, see `ianet.evaluation`.

    Raises:
        ValueError: unknown `cameras`.
    """
    refuse_unknown("cameras", cameras, get_args(Cameras))
    doubles = {column: _find_repetition(table, column) for column in split_columns(table)}
    remedy = "" if cameras == "ignore" else ", or ignore them (--cameras ignore)"
    if cameras == "ignore":
        table = table.assign(camera=table.path)
    for column, paths in doubles.items():
        where = "" if column == "split" else f"{column}: "
        if paths:
            yield (
                f"{where}{_count(paths, 'image', 'images')} listed more than once: {_list(paths)}. "
                "Keep a single row of an image; a query may have a second one in the gallery"
            )
        for problem in _find_split_problems(table, table[column], remedy):
            yield where + problem


def _find_repetition(table: pd.DataFrame, column: str) -> set[str]:
    """Return the paths that stand in several rows, but for those of a query and its gallery."""
    rows = table[table[column] != ""]
    labels = rows.assign(is_train=rows[column] == "train")
    labels = labels[["path", "person", "camera", "is_train"]].drop_duplicates()
    again = rows.path[rows.duplicated(["path", column])]
    return {*again, *labels.path[labels.path.duplicated()]}


def _find_split_problems(table: pd.DataFrame, split: pd.Series, remedy: str) -> Iterator[str]:
    train, query, gallery = (table[split == name] for name in SPLITS)
    is_for_scores = train.empty and set(query.path) == set(gallery.path)
    for name, images in zip(SPLITS, (train, query, gallery), strict=True):
        if images.empty and not (name == "train" and is_for_scores):
            yield f"there is no image in {name}"
    test = pd.concat([query, gallery])
    persons = set(train.person) & set(test.person)
    if persons:
        yield (
            f"{_count(persons, 'identity', 'identities')} in both train and test: "
            f"{_list(persons)}. Scores would be too good: take them out of one"
        )
    if query.empty or gallery.empty:
        return
    missing = set(query.person) - set(gallery.person)
    if missing:
        yield (
            f"{_count(missing, 'identity', 'identities')} in the query and missing from the "
            f"gallery: {_list(missing)}"
        )
    is_matched = have_matches(query, gallery)
    cameras = test.camera.unique()
    without = test[test.camera == ""]
    if 0 < len(without) < len(test):
        yield (
            f"{_count(without.path, 'image', 'images')} without a camera, where others have one: "
            f"{_list(without.path)}. Such images count as of one camera"
        )
    if list(cameras) == [""]:
        yield (
            "every query would be left without a match: no camera is known, and a match must be "
            f"from another camera than the query. Name the cameras{remedy}"
        )
    elif len(cameras) == 1:
        yield (
            f"every query would be left without a match: all images of query and gallery are from "
            f"one camera, {cameras[0]}, and a match must be from another camera than the query. "
            f"Name the cameras{remedy}"
        )
    elif not is_matched.any():
        yield (
            "every query would be left without a match: none has a gallery image of its identity "
            f"from another camera. Add images from other cameras{remedy}"
        )
    else:
        rows = query[~is_matched & ~query.person.isin(missing)]
        if len(rows):
            yield (
                f"{_count(rows.path, 'query', 'queries')} left without a match, as the "
                "gallery has its identity from its own camera only, or has no other image: "
                f"{_list(rows.path)}"
            )


def have_matches(query: pd.DataFrame, gallery: pd.DataFrame) -> pd.Series:
    """Return for each query whether the gallery has its identity from another camera.

    Args:
        query, gallery: with the columns person and camera.
    """
    places = gallery[["person", "camera"]].drop_duplicates()
    cameras = query.person.map(places.groupby("person").size()).fillna(0)
    is_seen_there = pd.MultiIndex.from_frame(query[["person", "camera"]]).isin(
        pd.MultiIndex.from_frame(places)
    )
    return cameras > is_seen_there


def find_image_problems(listing: Listing, digests: Iterable[bytes | ValueError]) -> Iterator[str]:
    """Yield problems of the images, a sentence for each, from the `image_digests`."""
    paths: dict[bytes, list[str]] = {}
    unreadable = []
    for path, digest in zip(listing.table.path.unique(), digests, strict=True):
        if isinstance(digest, ValueError):
            unreadable.append(str(digest))
        else:
            paths.setdefault(digest, []).append(path)
    if unreadable:
        yield (f"{_count(unreadable, 'image', 'images')} unreadable: {_list(unreadable, '; ')}")
    doubles = [" = ".join(group) for group in paths.values() if len(group) > 1]
    if doubles:
        yield f"{_count(doubles, 'image', 'images')} there more than once: {_list(doubles, '; ')}"


def image_digests(listing: Listing) -> Iterator[bytes | ValueError]:
    """Yield a digest of the pixels of each image, or why there is none, in table order.

    An image that stands in several rows counts once.
    """

    def digest(path: str) -> bytes | ValueError:
        try:
            image = listing.open(path)
        except ValueError as error:
            return error
        return hashlib.blake2b(repr(image.size).encode() + image.tobytes()).digest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from pool.map(digest, listing.table.path.unique())
        finally:
            pool.shutdown(cancel_futures=True)


def _count(names: Sequence[str] | set[str] | pd.Series, singular: str, plural: str) -> str:
    return f"1 {singular} is" if len(names) == 1 else f"{len(names):,} {plural} are"


def _list(items: Iterable[str], separator: str = ", ") -> str:
    names = [str(item) for item in sorted(items)]
    rest = len(names) - EXAMPLES
    return separator.join(names[:EXAMPLES]) + (f" and {rest:,} more" if rest > 0 else "")
