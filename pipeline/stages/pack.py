"""The images of a prepared data set -> data/prepared/<data set>/<height>x<width>.npy.

    python -m pipeline.stages.pack market1501.256x128

Each size has a stage of its own, which leaves the arrays of other sizes as they are.
"""

from __future__ import annotations

from rich.progress import track

from ianet import packing
from pipeline.config.settings import SettingsError
from pipeline.data.readers import read_dataset
from pipeline.plan.records import read_table
from pipeline.plan.runs import PREPARED, TABLE
from pipeline.shell import command, parser


def parse_key(text: str) -> tuple[str, packing.Size]:
    """Data set, height and width of <data set>.<height>x<width>.

    Raises:
        SettingsError: the text is no such key.
    """
    dataset, _, size = text.partition(".")
    height, _, width = size.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise SettingsError(
            f"{text!r} is no key: give <data set>.<height>x<width>, such as market1501.256x128"
        )
    return dataset, (int(height), int(width))


def main() -> None:
    options = parser(__doc__, "pipeline.stages.pack")
    options.add_argument("key", metavar="DATASET.HEIGHTxWIDTH", help="size in pixels")
    dataset, size = parse_key(options.parse_args().key)
    _, listing = read_dataset(dataset)
    prepared = PREPARED / dataset
    if not (prepared / TABLE).exists():
        raise FileNotFoundError(
            f"{prepared / TABLE} does not exist: `dvc repro prepare@{dataset}` makes it"
        )
    paths = read_table(prepared).path.tolist()
    name = f"{size[0]}x{size[1]}"
    progress = packing.pack(listing.open, paths, size, prepared / f"{name}.npy")
    for _ in track(progress, f"{dataset} {name}", len(paths)):
        pass


if __name__ == "__main__":
    command(main)
