"""What is wrong with a data set, in plain words, before anything is trained on the set.

    python -m pipeline.validate data/Market-1501-v15.09.15.zip
    python -m pipeline.validate data/cuhk-03.mat --option images=labeled --option protocol=classic

Exit code 1 if something is wrong. Options are those of the reader; published=false allows a
subset of a published set.
"""

from __future__ import annotations

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
from pipeline.config.settings import SettingsError
from pipeline.data.readers import guess_reader, read
from pipeline.shell import command, parser

EXAMPLES = 5  # that are named of each problem


def find_table_problems(table: pd.DataFrame) -> Iterator[str]:
    """Problems of identities, cameras and splits, a sentence for each; see `Listing`."""
    for column in split_columns(table):
        where = "" if column == "split" else f"{column}: "
        for problem in _find_split_problems(table, table[column]):
            yield where + problem


def _find_split_problems(table: pd.DataFrame, split: pd.Series) -> Iterator[str]:
    train, query, gallery = (table[split == name] for name in SPLITS)
    for name, images in zip(SPLITS, (train, query, gallery), strict=True):
        if images.empty:
            yield f"there is no image in {name}"
    test = pd.concat([query, gallery])
    shared = set(train.person) & set(test.person)
    if shared:
        yield (
            f"{_count(shared, 'identity', 'identities')} in both train and test: {_list(shared)}. "
            "Scores would be too good: take them out of one"
        )
    if query.empty or gallery.empty:
        return
    missing = set(query.person) - set(gallery.person)
    if missing:
        yield (
            f"{_count(missing, 'identity', 'identities')} in the query and missing from the "
            f"gallery: {_list(missing)}"
        )
    is_matched = _is_matched(query, gallery)
    cameras = test.camera.unique()
    if len(cameras) == 1:
        yield (
            f"every query would be left without a match: all images of query and gallery are from "
            f"one camera, {cameras[0]}, and a match must be from another camera than the query"
        )
    elif not is_matched.any():
        yield (
            "every query would be left without a match: none has a gallery image of its identity "
            "from another camera"
        )
    else:
        unmatched = query[~is_matched & ~query.person.isin(missing)]
        if len(unmatched):
            yield (
                f"{_count(unmatched.path, 'query', 'queries')} left without a match, as the "
                f"gallery has its identity from its own camera only: {_list(unmatched.path)}"
            )


def _is_matched(query: pd.DataFrame, gallery: pd.DataFrame) -> pd.Series:
    """Whether the gallery has a query's identity from another camera than the query's own."""
    places = gallery[["person", "camera"]].drop_duplicates()
    cameras = query.person.map(places.groupby("person").size()).fillna(0)
    is_seen_there = pd.MultiIndex.from_frame(query[["person", "camera"]]).isin(
        pd.MultiIndex.from_frame(places)
    )
    return cameras > is_seen_there


def find_image_problems(listing: Listing, digests: Iterable[bytes | ValueError]) -> Iterator[str]:
    """Problems of the images, a sentence for each, from the `image_digests`."""
    paths: dict[bytes, list[str]] = {}
    unreadable = []
    for path, digest in zip(listing.table.path, digests, strict=True):
        if isinstance(digest, ValueError):
            unreadable.append(str(digest))
        else:
            paths.setdefault(digest, []).append(path)
    if unreadable:
        yield (f"{_count(unreadable, 'image', 'images')} unreadable: {_list(unreadable, '; ')}")
    repeated = [" = ".join(group) for group in paths.values() if len(group) > 1]
    if repeated:
        yield f"{_count(repeated, 'image', 'images')} there more than once: {_list(repeated, '; ')}"


def image_digests(listing: Listing) -> Iterator[bytes | ValueError]:
    """For each image a digest of its pixels, or why the image cannot be read, in table order."""

    def digest(path: str) -> bytes | ValueError:
        try:
            image = listing.open(path)
        except ValueError as error:
            return error
        return hashlib.blake2b(repr(image.size).encode() + image.tobytes()).digest()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            yield from pool.map(digest, listing.table.path)
        finally:
            pool.shutdown(cancel_futures=True)


def _count(names: Sequence[str] | set[str] | pd.Series, singular: str, plural: str) -> str:
    return f"1 {singular} is" if len(names) == 1 else f"{len(names):,} {plural} are"


def _list(items: Iterable[str], separator: str = ", ") -> str:
    names = [str(item) for item in sorted(items)]
    more = len(names) - EXAMPLES
    return separator.join(names[:EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")


def main() -> None:
    options = parser(__doc__, "pipeline.validate")
    options.add_argument("source", type=Path, help="folder, zip, tar, CSV, Parquet or cuhk-03.mat")
    options.add_argument("--reader", help="of ianet/datasets; guessed where the layout tells")
    options.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    arguments = options.parse_args()
    start = time.monotonic()
    reader = arguments.reader or guess_reader(arguments.source)
    values = _parse_options(arguments.option)
    listing = read(reader, arguments.source, values, f"reader {reader}")
    counts = ", ".join(f"{number:,} {what}" for what, number in listing.counts.items())
    print(f"{arguments.source}, read by {reader}: {counts}")
    digests = track(image_digests(listing), "looking at each image", len(listing.table))
    problems = [*find_table_problems(listing.table), *find_image_problems(listing, digests)]
    for problem in problems:
        print(f"wrong: {problem}")
    if problems:
        sys.exit(1)
    print(f"nothing is wrong ({time.monotonic() - start:.0f} s)")


def _parse_options(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise SettingsError(f"--option {text}: write it as name=value")
    return dict(text.split("=", 1) for text in texts)


if __name__ == "__main__":
    command(main)
