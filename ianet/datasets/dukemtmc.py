"""DukeMTMC-reID (Ristani et al., ECCV Workshops 2016; Zheng et al., ICCV 2017).

    DukeMTMC-reID/bounding_box_train/0005_c2_f0046985.jpg

is identity 5, camera 2 (of 8), frame 46985. The gallery has 408 identities that no query has;
there is no junk. The authors withdrew the data set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ianet.datasets.bounding_boxes import Layout, are_boxes, read_boxes
from ianet.datasets.listing import Listing

LAYOUT = Layout(
    name="DukeMTMC-reID",
    pattern=re.compile(r"(\d+)_c(\d+)_f\d+"),
    example="0005_c2_f0046985.jpg with a camera of 1 to 8",
    cameras=range(1, 9),
    published={
        "train images": 16_522,
        "train identities": 702,
        "query images": 2_228,
        "query identities": 702,
        "gallery images": 17_661,
        "gallery identities": 1_110,
    },
    expected=(
        "DukeMTMC-reID's zip or folder with bounding_box_train (16,522 images), query (2,228) and "
        "bounding_box_test (17,661); its makers withdrew it, so only a copy from before will do"
    ),
)


def read(source: Path, *, published: bool = True) -> Listing:
    """Return the images of DukeMTMC-reID.

    Args:
        source: the folder, the zip or the tar, with the three folders at any depth.
        published: whether the counts must be the published ones; False allows a subset.

    Raises:
        FileNotFoundError: no source, or the source lacks a folder.
        ValueError: a damaged source, a misnamed image, or counts that are not the published.
    """
    return read_boxes(source, LAYOUT, published=published)


def fits(paths: Sequence[str]) -> bool:
    """Return whether the paths are in this layout."""
    return are_boxes(paths, LAYOUT)
