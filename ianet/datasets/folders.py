"""Any set of images, a folder a person.

    train/anna/entrance_0001.jpg
    query/bert/hall_0417.jpg, gallery/bert/entrance_0398.jpg

is split (train, query or gallery), person, and camera. The camera is the image's name up to the
first "_", and "", unknown, of a name without. Persons and cameras are text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ianet.datasets.listing import (
    IMAGES,
    SPLITS,
    Listing,
    check_single,
    count_images,
    sort_rows,
)
from ianet.datasets.source import image_opener, open_source

EXPECTED = (
    "a folder, zip or tar with images like train/anna/entrance_0001.jpg, and the same beneath "
    "query and gallery"
)


def read(source: Path, *, published: bool = True) -> Listing:
    """Return the images of a source with a folder for each person.

    Args:
        source: the folder, zip or tar, with train, query and gallery at any depth.
        published: without effect, as there are no published counts.

    Raises:
        FileNotFoundError: no source, or no image in the source.
        ValueError: a damaged source, several data sets in one source, or an image whose path is not
            as above.
    """
    files = open_source(source, EXPECTED)
    rows = []
    places: dict[str, set[str]] = {}
    for path in files.paths():
        if not path.lower().endswith(IMAGES):
            continue
        if not _is_in_layout(path):
            raise ValueError(
                f"{source}: {path} does not lie like train/anna/entrance_0001.jpg: move or remove "
                "it"
            )
        split, person, name = PurePosixPath(path).parts[-3:]
        camera, underscore, _ = name.partition("_")
        rows.append((path, person, camera if underscore else "", split))
        places.setdefault(split, set()).add(PurePosixPath(path).parents[2].as_posix())
    if not rows:
        raise FileNotFoundError(f"{source} holds no image. Expected: {EXPECTED}")
    check_single(source, places)
    table = sort_rows(rows)
    return Listing(table, count_images(table), image_opener(files))


def fits(paths: Sequence[str]) -> bool:
    """Return whether the paths are in this layout."""
    # By the query: MSMT17's folder "train" has a folder for each person, too.
    return any(
        _is_in_layout(path) and PurePosixPath(path).parts[-3] == "query"
        for path in paths
        if path.lower().endswith(IMAGES)
    )


def _is_in_layout(path: str) -> bool:
    return ("", "", *PurePosixPath(path).parts)[-3] in SPLITS
