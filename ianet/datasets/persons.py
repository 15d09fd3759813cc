"""Photos of one's own to score a model on, a folder a person, without splits.

    anna/1.jpg
    anna/entrance_0002.jpg, bert/hall_0417.jpg

Each image is a query and belongs to the gallery. The camera is the image's name up to the first
"_", and "", unknown, of a name without. Persons and cameras are text.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ianet.datasets.listing import IMAGES, Listing, count_images, sort_rows
from ianet.datasets.source import image_opener, open_source

EXPECTED = "a folder, zip or tar with images like anna/1.jpg, a folder a person"


def read(source: Path, *, published: bool = True) -> Listing:
    """Return the images of a source with a folder for each person.

    Args:
        source: the folder, zip or tar.
        published: without effect, as there are no published counts.

    Raises:
        FileNotFoundError: no source, or no image in the source.
        ValueError: a damaged source, or an image that lies in no folder.
    """
    files = open_source(source, EXPECTED)
    rows = []
    for path in files.paths():
        where = PurePosixPath(path)
        if where.suffix.lower() not in IMAGES:
            continue
        if not where.parent.name:
            raise ValueError(f"{source}: {path} lies in no folder of a person: move or remove it")
        camera, underscore, _ = where.stem.partition("_")
        for split in ("query", "gallery"):
            rows.append((path, where.parent.name, camera if underscore else "", split))
    if not rows:
        raise FileNotFoundError(f"{source} holds no image. Expected: {EXPECTED}")
    table = sort_rows(rows)
    return Listing(table, count_images(table), image_opener(files))
