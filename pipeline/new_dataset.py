"""Add your own photos to params.yaml as a data set, ready to be trained on.

    python -m pipeline.new_dataset photos
    python -m pipeline.new_dataset photos --name lobby --recipe cpu

The folder is in a layout of docs/data.md, or holds a folder for each person. Without a split into
train, query and gallery, half of the persons become the test, in a new file images.csv of the
folder. The data set is checked first. Nothing is written where anything is wrong.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
from rich.progress import track
from ruamel.yaml import YAML

from ianet.datasets.listing import IMAGES, Listing, split_columns
from ianet.datasets.source import open_source
from ianet.files import whole, write_whole
from ianet.pictures import find_pictures
from ianet.readers import guess_reader, read_source
from ianet.validation import find_image_problems, find_table_problems, image_digests
from pipeline.config.settings import PARAMS, SettingsError, check_known, load
from pipeline.data.proposal import propose_split, sees_twice
from pipeline.plan.dvc_yaml import write
from pipeline.plan.plan import load_plan
from pipeline.shell import command, parser

LIST = "images.csv"
NETWORKS = ["base", "stage23"]
HELD_OUT_SHARE = 0.2  # of the training identities


def list_photos(folder: Path) -> pd.DataFrame:
    """Path, person and camera of photos in a folder for each person.

    Raises:
        SettingsError: photos that lie in no person's folder.
        FileNotFoundError: no photo.
    """
    pictures = find_pictures(folder, "folders")
    paths = [Path(picture.path).relative_to(folder).as_posix() for picture in pictures]
    alone = [path for path in paths if "/" not in path]
    if alone:
        raise SettingsError(
            f"{folder / alone[0]} lies in no person's folder: put the photos of each person into a "
            "folder of the person's name, or write a list (docs/data.md)"
        )
    cameras = [picture.camera for picture in pictures]
    if not all(cameras):
        cameras = ["0"] * len(cameras)  # where some names tell no camera, none is known
    persons = [picture.person for picture in pictures]
    return pd.DataFrame({"path": paths, "person": persons, "camera": cameras})


def find_cameras(table: pd.DataFrame) -> str:
    """Whether cameras can be respected: a test person is seen by two of them."""
    for column in split_columns(table):
        test = table[table[column].isin(["query", "gallery"])]
        if not sees_twice(test).any():
            return "ignore"
    return "respect"


def check(listing: Listing, cameras: str) -> list[str]:
    """What is wrong with a data set, a sentence each."""
    table = listing.table
    if cameras == "ignore":  # each image as from a camera of its own
        table = table.assign(camera=range(len(table)))
    digests = track(image_digests(listing), "looking at each image", len(table))
    return [*find_table_problems(table), *find_image_problems(listing, digests)]


def has_split(folder: Path) -> bool:
    """Whether a reader knows the layout of a source."""
    try:
        guess_reader(folder)
    except ValueError:
        return False
    return True


def add_entry(name: str, entry: dict[str, Any]) -> None:
    """Add a data set to params.yaml, at hand; all else keeps its form."""
    yaml = YAML()
    yaml.width = 200
    content = yaml.load(PARAMS)
    content["at_hand"].append(name)
    content["datasets"].insert(1, name, entry)  # at the end a comment would come between
    with whole(PARAMS) as temporary:
        yaml.dump(content, temporary)


def main() -> None:
    options = parser(__doc__, "pipeline.new_dataset")
    options.add_argument("folder", type=Path, help="of the photos, or an archive")
    options.add_argument("--name", help="of the data set; the folder's name if none is given")
    options.add_argument("--recipe", default="cpu", help="of params.yaml; cpu if none is given")
    arguments = options.parse_args()
    folder = arguments.folder
    settings = load()
    name = arguments.name or re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().stem).strip("-")
    check_known(arguments.recipe, settings.recipes, "--recipe", "recipes of params.yaml")
    if name in settings.datasets:
        raise SettingsError(f"params.yaml has a data set {name}: give another one by --name")
    if has_split(folder):
        split, reader, text = None, guess_reader(folder), ""
        listing = read_source(folder, reader, {})
    else:
        open_source(folder, "a folder with a folder of photos for each person")
        images = list_photos(folder)
        cameras = "respect" if sees_twice(images).any() else "ignore"
        split = images.assign(split=propose_split(images, cameras=cameras))
        reader, text = "listed", split.to_csv(index=False)
        listing = read_listed(folder, text)
    cameras = find_cameras(listing.table)
    problems = check(listing, cameras)
    if problems:
        lines = "\n".join(f"wrong: {problem}" for problem in problems)
        raise SettingsError(f"{folder} is not ready, and nothing was written:\n{lines}")
    print(f"{folder}: {', '.join(f'{n:,} {what}' for what, n in listing.counts.items())}")


if __name__ == "__main__":
    command(main)
