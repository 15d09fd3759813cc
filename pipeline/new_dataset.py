"""Add your own photos to params.yaml as a data set, ready to be trained on.

    python -m pipeline.new_dataset photos
    python -m pipeline.new_dataset photos --name lobby --recipe cpu
    python -m pipeline.new_dataset photos --start model
    python -m pipeline.new_dataset photos --terms "Only within our house."

With --start, trainings start from a model, such as that of Market-1501: a copy of the recipe, named
after the data set, says so.

The folder is in a layout of docs/data.md, or holds a folder for each person. Without a split into
train, query and gallery, half of the persons become the test, in a new file images.csv of the
folder. The data set is checked first. Nothing is written where anything is wrong.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from rich.progress import track
from ruamel.yaml import YAML

from ianet.datasets import listed
from ianet.datasets.listing import Listing, count_images, sort_rows, split_columns
from ianet.datasets.source import image_opener, open_source
from ianet.files import build_whole, write_whole
from ianet.options import Cameras
from ianet.pictures import find_pictures
from ianet.readers import UnknownLayoutError, guess_reader, read_source
from ianet.validation import find_image_problems, find_table_problems, image_digests
from pipeline.config.settings import (
    PARAMS,
    RESULT_FOLDERS,
    RecipeSettings,
    Settings,
    SettingsError,
    check_known,
    is_name,
)
from pipeline.data.proposal import have_two_cameras, propose_split
from pipeline.plan.dvc_yaml import write
from pipeline.plan.plan import load_plan
from pipeline.plan.runs import find_start
from pipeline.shell import LOGS, command, format_minutes, lock_work, parser

LIST = "images.csv"
NETWORKS = ["base", "stage23"]
EXPECTED = "a folder with a folder of photos for each person"
HELD_OUT_SHARE = 0.2  # of the training identities
MARKET_IMAGES = 12_936  # of the training on Market-1501, for which recipes give their minutes


def propose_listing(folder: Path) -> pd.DataFrame:
    """Path, person, camera and split of photos in a folder for each person.

    Raises:
        SettingsError: photos that lie in no person's folder, an archive, a table beside the photos,
            or a name that a list cannot hold.
        FileNotFoundError: no photo.
        ValueError: too few persons, see `propose_split`.
    """
    if folder.is_file():
        raise SettingsError(f"{folder} has no split: unpack the archive, and give the folder")
    pictures = find_pictures(folder, "folders")
    paths = [Path(picture.path).relative_to(folder).as_posix() for picture in pictures]
    persons = [picture.person for picture in pictures]
    files = open_source(folder, EXPECTED).paths()
    tables = [path for path in files if path.lower().endswith(listed.KINDS)]
    if tables:
        raise SettingsError(
            f"{folder} holds {', '.join(tables[:5])}: a reader takes a table for the list of the "
            "images, so move each such file away, or name the right one in place of the folder"
        )
    strays = [path for path, person in zip(paths, persons, strict=True) if not person.strip()]
    if strays:
        raise SettingsError(
            f"{folder / strays[0]} lies in no person's folder: put the photos of each person into "
            "a folder of the person's name, or write a list (docs/data.md)"
        )
    cameras = [picture.camera for picture in pictures]
    if not all(cameras):
        cameras = ["0"] * len(cameras)  # where some names tell no camera, none is known
    table = pd.DataFrame({"path": paths, "person": persons, "camera": cameras})
    choice: Cameras = "respect" if have_two_cameras(table).any() else "ignore"
    table = table.assign(split=propose_split(table, cameras=choice))
    refuse_other_names(table, folder)
    return table


def refuse_other_names(table: pd.DataFrame, folder: Path) -> None:
    """Refuse names that a reader of the list takes for others, or for none.

    Args:
        table: path, person, camera and split.
        folder: of the photos, for the message.

    Raises:
        SettingsError: such as a person 1.0, who is read as 1.
    """
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / LIST
        write_whole(path, table.to_csv(index=False))
        copy = listed.read(path).table.astype(str)
    rows = set(copy.itertuples(index=False, name=None))
    for row in table.itertuples(index=False, name=None):
        if row not in rows:
            raise SettingsError(
                f"{folder / row[0]} cannot be listed: a list has no blanks at the ends of a name, "
                "takes -1 for junk and 1.0 for 1, so rename the person's folder or the photo"
            )


def check_name(name: str, settings: Settings) -> None:
    """Refuse a name that no new data set can have.

    Raises:
        SettingsError: the name is taken, or cannot be a part of commands and file names.
    """
    if name in settings.datasets:
        raise SettingsError(f"params.yaml has a data set {name}: give another one by --name")
    if name in RESULT_FOLDERS:
        raise SettingsError(f"{name} is a folder of results/: give another name by --name")
    if not is_name(name):
        raise SettingsError(
            f"{name!r} cannot name a data set: give --name with letters, digits, - and _, of which "
            "the first is no -"
        )


def find_cameras(table: pd.DataFrame) -> Cameras:
    """Whether to respect cameras or to ignore them: no test person is seen by two."""
    for column in split_columns(table):
        test = table[table[column].isin(["query", "gallery"])]
        if not have_two_cameras(test).any():
            return "ignore"
    return "respect"


def find_problems(listing: Listing, cameras: Cameras) -> list[str]:
    """What is wrong with a data set, a sentence each."""
    table = listing.table
    digests = track(image_digests(listing), "looking at each image", len(table))
    return [*find_table_problems(table, cameras), *find_image_problems(listing, digests)]


def find_reader(source: Path) -> str | None:
    """The reader of a source; None where no layout of a reader has these files."""
    try:
        return guess_reader(source)
    except UnknownLayoutError:
        return None


def start_from(model: Path, recipe: RecipeSettings) -> RecipeSettings:
    """A recipe whose trainings start from a model, with the model's backbone and size of images.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: what lies there is no model.
    """
    from ianet.model import load  # torch, which only this needs

    description = load(model).description
    size, backbone = description.input, description.options.backbone
    network = {**recipe.network, "backbone": backbone, "weights": str(model)}
    training = {**recipe.training, "height": size.height, "width": size.width}
    changes: dict[str, Any] = {"network": network, "training": training}
    # The minutes of another backbone or size are unknown.
    if (recipe.network.get("backbone"), recipe.training) != (backbone, training):
        changes["minutes"] = None
    return recipe.model_copy(update=changes)


def add_entry(name: str, entry: dict[str, Any], recipes: Mapping[str, RecipeSettings]) -> None:
    """Add a data set to params.yaml, at hand, and recipes; all else keeps its form."""
    yaml = YAML()
    yaml.width = 200
    content = yaml.load(PARAMS)
    content["at_hand"].append(name)
    content["datasets"].insert(1, name, entry)  # at the end a comment would come between
    for place, (title, recipe) in enumerate(recipes.items()):
        options = recipe.model_dump(mode="json", exclude_none=True)
        content["recipes"].insert(1 + place, title, options)
    with build_whole(PARAMS) as temporary:
        yaml.dump(content, temporary)


def estimate_minutes(recipe: RecipeSettings, images: int) -> str:
    """How long a training takes, in words.

    Args:
        recipe: its minutes are those of Market-1501 on one core. A recipe that starts from the
            model of a run is for drawn people.
        images: of the training.

    Returns:
        Nothing where the recipe has no such minutes.
    """
    if recipe.minutes is None or find_start(str(recipe.network.get("weights", ""))):
        return ""
    return f", in about {format_minutes(recipe.minutes * images / MARKET_IMAGES)} on one core"


def main() -> None:
    options = parser(__doc__, "pipeline.new_dataset")
    options.add_argument("folder", help="of the photos, or an archive")
    options.add_argument("--name", help="of the data set; the folder's name if none is given")
    options.add_argument("--recipe", default="cpu", help="of params.yaml; cpu if none is given")
    options.add_argument("--start", type=Path, metavar="MODEL", help="folder or zip of a model")
    options.add_argument("--terms", metavar="TEXT", help="under which the photos are to be had")
    arguments = options.parse_args()
    if not arguments.folder:
        raise SettingsError(f"the path is empty: name {EXPECTED}")
    folder = Path(arguments.folder)
    settings = load_plan().settings
    name = arguments.name
    if name is None:
        name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().stem).strip("-")
    check_known(arguments.recipe, settings.recipes, "--recipe", "recipes of params.yaml")
    check_name(name, settings)
    title, recipe = arguments.recipe, settings.recipes[arguments.recipe]
    recipes = {}
    if arguments.start is not None:
        title = f"{title}-{name}"
        if title in settings.recipes:
            raise SettingsError(f"params.yaml has a recipe {title}: give another --name")
        recipe = recipes[title] = start_from(arguments.start, recipe)
    reader = find_reader(folder)
    proposal = None
    if reader is not None:
        listing = read_source(folder, reader, {})
    else:
        reader, proposal = "listed", propose_listing(folder)
        rows = sort_rows(proposal.itertuples(index=False, name=None))
        listing = Listing(rows, count_images(rows), image_opener(open_source(folder, EXPECTED)))
    cameras = find_cameras(listing.table)
    problems = find_problems(listing, cameras)
    if problems:
        lines = "".join(f"\nwrong: {problem}" for problem in problems)
        raise SettingsError(f"{folder} is not ready, and nothing was written:{lines}")
    if proposal is not None:
        write_whole(folder / LIST, proposal.to_csv(index=False))
        print(f"{folder / LIST} has the split: half of the persons are for testing")
    split = listing.table[split_columns(listing.table)[0]]
    train_persons = listing.table.person[split == "train"].nunique()
    entry = {
        "reader": reader,
        "source": str(folder),
        "cameras": cameras,
        "held_out": int(HELD_OUT_SHARE * train_persons),
        "recipes": {"plain": title},
        "networks": NETWORKS,
    }
    if arguments.terms is not None:
        entry["terms"] = arguments.terms
    with lock_work(LOGS / "repro.lock", "making results in this folder"):
        before = PARAMS.read_bytes()
        add_entry(name, entry, recipes)
        try:
            write(load_plan())
        except (ValueError, OSError):
            write_whole(PARAMS, before)
            if proposal is not None:
                (folder / LIST).unlink()
            raise
    print(f"{name}: {', '.join(f'{number:,} {what}' for what, number in listing.counts.items())}")
    if cameras == "ignore":
        print("No person is seen by two cameras: cameras are ignored when scores are computed")
    keys = [f"{name}.{network}.{title}.0" for network in NETWORKS]
    estimate = estimate_minutes(recipe, int((split == "train").sum()))
    print(
        f"params.yaml has {name}, which `make repro` trains, too, until the name leaves at_hand. "
        f"Each line trains a network{estimate}:"
    )
    for key in keys:
        print(f"    dvc repro model@{key}")
    print("Each line scores a model:")
    choice = " --cameras ignore" if cameras == "ignore" else ""
    for key in keys:
        print(f"    ianet evaluate models/{key} {shlex.quote(str(folder))}{choice}")


if __name__ == "__main__":
    command(main)
