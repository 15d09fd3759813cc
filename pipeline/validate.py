"""What is wrong with a data set, in plain words, before anything is trained on it.

    python -m pipeline.validate data/Market-1501-v15.09.15.zip
    python -m pipeline.validate data/cuhk-03.mat --option images=labeled --option protocol=classic

Exit code 1 if something is wrong. Options are those of the reader; published=false allows a
subset of a published set.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
from rich.progress import track

from ianet.datasets.listing import SPLITS, Listing, split_columns
from pipeline.readers import guessed, read
from pipeline.settings import SettingsError
from pipeline.shell import stage

SHOWN = 5
"""Examples that are named of each thing that is wrong."""


def wrong_in_table(table: pd.DataFrame) -> Iterator[str]:
    """What is wrong with who is where; one sentence each. See `Listing` for the table."""
    for column in split_columns(table):
        where = "" if column == "split" else f"{column}: "
        for problem in _wrong_in_split(table, table[column]):
            yield where + problem


def _wrong_in_split(table: pd.DataFrame, split: pd.Series) -> Iterator[str]:
    train, query, gallery = (table[split == name] for name in SPLITS)
    for name, own in zip(SPLITS, (train, query, gallery), strict=True):
        if own.empty:
            yield f"there is no image in {name}"
    tested = pd.concat([query, gallery])
    both = set(train.person) & set(tested.person)
    if both:
        yield (
            f"{_number(both, 'identity', 'identities')} in both train and test: {_named(both)}. "
            "Scores would be too good: take them out of one"
        )
    if query.empty or gallery.empty:
        return
    missing = set(query.person) - set(gallery.person)
    if missing:
        yield (
            f"{_number(missing, 'identity', 'identities')} in the query and missing from the "
            f"gallery: {_named(missing)}"
        )
    matched = _matched(query, gallery)
    cameras = tested.camera.unique()
    if len(cameras) == 1:
        yield (
            f"every query would be left without a match: all images of query and gallery are from "
            f"one camera, {cameras[0]}, and a match must be from another camera than the query"
        )
    elif not matched.any():
        yield (
            "every query would be left without a match: none has a gallery image of its identity "
            "from another camera"
        )
    else:
        alone = query[~matched & ~query.person.isin(missing)]
        if len(alone):
            yield (
                f"{_number(alone.path, 'query', 'queries')} left without a match, as the gallery "
                f"has its identity from its own camera only: {_named(alone.path)}"
            )


def _matched(query: pd.DataFrame, gallery: pd.DataFrame) -> pd.Series:
    """Whether the gallery has a query's identity from another camera than the query's own."""
    places = gallery[["person", "camera"]].drop_duplicates()
    cameras = query.person.map(places.groupby("person").size()).fillna(0)
    own = pd.MultiIndex.from_frame(query[["person", "camera"]]).isin(
        pd.MultiIndex.from_frame(places)
    )
    return cameras > own


def wrong_in_images(listing: Listing, digests: Iterable[bytes | ValueError]) -> Iterator[str]:
    """What is wrong with the images, from what `digested` yields for each of them."""
    paths: dict[bytes, list[str]] = {}
    unreadable = []
    for path, digest in zip(listing.table.path, digests, strict=True):
        if isinstance(digest, ValueError):
            unreadable.append(str(digest))
        else:
            paths.setdefault(digest, []).append(path)
    if unreadable:
        yield (f"{_number(unreadable, 'image', 'images')} unreadable: {_named(unreadable, '; ')}")
    twice = [" = ".join(same) for same in paths.values() if len(same) > 1]
    if twice:
        yield f"{_number(twice, 'image', 'images')} there more than once: {_named(twice, '; ')}"


def digested(listing: Listing) -> Iterator[bytes | ValueError]:
    """For each image a digest of its pixels, or why it cannot be read; in the table's order."""

    def one(path: str) -> bytes | ValueError:
        try:
            image = listing.open(path)
        except ValueError as error:
            return error
        return hashlib.blake2b(repr(image.size).encode() + image.tobytes()).digest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from pool.map(one, listing.table.path)
        finally:
            pool.shutdown(cancel_futures=True)


def _number(things: Sequence[str] | set[str] | pd.Series, one: str, more: str) -> str:
    return f"1 {one} is" if len(things) == 1 else f"{len(things):,} {more} are"


def _named(things: Iterable[str], separator: str = ", ") -> str:
    names = [str(thing) for thing in sorted(things)]
    more = len(names) - SHOWN
    return separator.join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="folder, zip, tar, CSV, Parquet or cuhk-03.mat")
    parser.add_argument("--reader", help="of ianet/datasets; guessed where the layout tells")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    began = time.monotonic()
    reader = arguments.reader or guessed(arguments.source)
    listing = read(reader, arguments.source, _options(arguments.option), f"reader {reader}")
    counts = ", ".join(f"{number:,} {what}" for what, number in listing.counts.items())
    print(f"{arguments.source}, read by {reader}: {counts}")
    digests = track(digested(listing), "looking at each image", len(listing.table))
    problems = [*wrong_in_table(listing.table), *wrong_in_images(listing, digests)]
    for problem in problems:
        print(f"wrong: {problem}")
    if problems:
        sys.exit(1)
    print(f"nothing is wrong ({time.monotonic() - began:.0f} s)")


def _options(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise SettingsError(f"--option {text}: write it as name=value")
    return dict(text.split("=", 1) for text in texts)


if __name__ == "__main__":
    with stage():
        main()
