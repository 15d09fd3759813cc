"""MSMT17 (Wei et al., Person Transfer GAN to Bridge Domain Gap for Person Re-identification,
CVPR 2018), V1 and V2.

    MSMT17_V1/list_train.txt, list_val.txt, list_query.txt, list_gallery.txt
    MSMT17_V1/train/0000/0000_045_12_0303morning_0006_2.jpg, test/...

A line "0000/0000_045_12_0303morning_0006_2.jpg 0" of a list is an image and its identity; the
third field of the name, 12, is the camera (of 15). V2, with blurred faces, differs in its folders,
mask_train_v2 and mask_test_v2. The images of `val` are of the identities of `train`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ianet.datasets.listing import Listing, check_counts, count_images, sort_rows
from ianet.datasets.source import Files, image_opener, open_source
from ianet.options import refuse_unknown

TRAINING = ("train", "train+val")
LISTS = {"train": "train", "val": "train", "query": "test", "gallery": "test"}
FOLDERS = {
    "V1": {"train": "train", "test": "test"},
    "V2": {"train": "mask_train_v2", "test": "mask_test_v2"},
}
CAMERAS = range(1, 16)
TEST_FROM = 1_041
"""Training and test identities are both numbered from 0; test identities are shifted by this."""

PUBLISHED = {
    "train images": 30_248,
    "train identities": 1_041,
    "query images": 11_659,
    "query identities": 3_060,
    "gallery images": 82_161,
    "gallery identities": 3_060,
}
VALIDATION_IMAGES = 2_373
EXPECTED = (
    "MSMT17's folder, zip or tar with list_train.txt, list_val.txt, list_query.txt, "
    "list_gallery.txt and the folders train and test (V1) or mask_train_v2 and mask_test_v2 (V2), "
    "to be had from its authors, Wei et al., CVPR 2018"
)

_LINE = re.compile(r"((?:\S+/)?\d+_\d+_(?P<camera>\d+)_[^\s/]+\.jpg) (?P<identity>\d+)")


def read(source: Path, *, training: str, published: bool = True) -> Listing:
    """Return the images of MSMT17's lists.

    Args:
        source: the folder, the zip or the tar, with the lists at any depth.
        training: "train", or "train+val" with 7.8 % more images. There is no default, as results
            are published for both.
        published: whether the counts must be those published; False allows a subset.

    Raises:
        FileNotFoundError: no source, or a list, the folders or an image of a list are missing.
        ValueError: a damaged source, V1 and V2 in one source, a wrong line or option, or counts
            that are not the published.
    """
    refuse_unknown("training", training, TRAINING)
    files = open_source(source, EXPECTED)
    paths = files.paths()
    root, folders = _find_version(source, paths)
    existing = set(paths)
    rows = []
    for name in (*training.split("+"), "query", "gallery"):
        folder = LISTS[name]
        for path, identity, camera in _read_lines(files, source, f"{root}list_{name}.txt"):
            image = f"{root}{folders[folder]}/{path}"
            if image not in existing:
                raise FileNotFoundError(
                    f"{source} lacks {image}, which list_{name}.txt names: fetch it again"
                )
            if folder == "train":
                rows.append((image, identity, camera, "train"))
            else:
                rows.append((image, TEST_FROM + identity, camera, name))
    table = sort_rows(rows)
    counts = count_images(table)
    if published:
        extra = VALIDATION_IMAGES if training == "train+val" else 0
        expected = {**PUBLISHED, "train images": PUBLISHED["train images"] + extra}
        check_counts(source, f"MSMT17 with training {training}", counts, expected)
    return Listing(table, counts, image_opener(files))


def fits(paths: Sequence[str]) -> bool:
    """Return whether the paths are in this layout."""
    return any(path.rpartition("/")[2] == "list_gallery.txt" for path in paths)


def _find_version(source: Path, paths: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the path of the only version with a final "/", and its folders."""
    starts = [
        path.removesuffix("list_train.txt")
        for path in paths
        if path.rpartition("/")[2] == "list_train.txt"
    ]
    versions = [
        (start, version)
        for start in starts
        for version, folders in FOLDERS.items()
        if any(path.startswith(f"{start}{folders['train']}/") for path in paths)
    ]
    if not versions:
        raise FileNotFoundError(f"{source} holds no MSMT17. Expected: {EXPECTED}")
    if len(versions) > 1:
        names = ", ".join(f"{version} in ./{start}" for start, version in versions)
        raise ValueError(
            f"{source} holds several versions of MSMT17 ({names}): name the folder of one of "
            "them as source"
        )
    start, version = versions[0]
    return start, FOLDERS[version]


def _read_lines(files: Files, source: Path, name: str) -> list[tuple[str, int, int]]:
    """Return path, identity and camera of each line of a list."""
    try:
        # Editors of Windows write a byte order mark.
        lines = files.read(name).decode("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise FileNotFoundError(f"{source} holds no {name}. Expected: {EXPECTED}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line.strip())
        if match is None or int(match["camera"]) not in CAMERAS:
            raise ValueError(
                f"{source}: line {number} of {name} is {line[:80]!r}, not like "
                "'0000/0000_045_12_0303morning_0006_2.jpg 0' with a camera of 1 to 15"
            )
        rows.append((match[1], int(match["identity"]), int(match["camera"])))
    return rows
