"""Market-1501 (Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015).

    Market-1501-v15.09.15/bounding_box_train/0002_c1s1_000451_03.jpg

is identity 2, camera 1 (of 6), sequence 1, frame 451, box 3. `query` holds one image for each
test identity and camera, `bounding_box_test` the gallery with its distractors (identity 0000)
and junk (identity -1: badly detected boxes that must not influence the score).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ianet.datasets.bounding_boxes import Layout, are_boxes, read_boxes
from ianet.datasets.listing import Listing

LAYOUT = Layout(
    name="Market-1501",
    # 24 of the published files really end in .jpg.jpg.
    pattern=re.compile(r"(-?\d+)_c(\d+)s\d+_\d+_\d+(?:\.jpg)?"),
    example="0002_c1s1_000451_03.jpg with a camera of 1 to 6",
    cameras=range(1, 7),
    published={
        "train images": 12_936,
        "train identities": 751,
        "query images": 3_368,
        "query identities": 750,
        "gallery images": 15_913,
        "distractors": 2_798,
        "junk dropped": 3_819,
    },
    expected=(
        "Market-1501's zip or folder, Market-1501-v15.09.15 with bounding_box_train (12,936 "
        "images), query (3,368) and bounding_box_test (19,732), to be had from its authors, "
        "Zheng et al., ICCV 2015"
    ),
)


def read(source: Path, *, published: bool = True) -> Listing:
    """Return the images of Market-1501, or of any set in its layout; junk is only counted.

    Args:
        source: the folder, the zip or the tar, with the three folders at any depth.
        published: whether the counts must be those of Market-1501 as published; False allows
            a subset, or another set.

    Raises:
        FileNotFoundError: no source, or the source lacks a folder.
        ValueError: a damaged source, a misnamed image, or counts that are not the published.
    """
    return read_boxes(source, LAYOUT, published=published)


def fits(paths: Sequence[str]) -> bool:
    """Return whether the paths are in this layout."""
    return are_boxes(paths, LAYOUT)
