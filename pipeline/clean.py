"""Delete checkpoints and copies of data that unfinished work left in the storage.

    python -m pipeline.clean                       list what would be deleted
    python -m pipeline.clean --older-than 7 --yes  delete what nobody touched for 7 days

Checkpoints of a training or search under way stay. Copies of data stay while any training or search
is under way. An evaluation holds no lease: stop evaluations first. A training or search without its
checkpoints begins anew. Each node has copies of a store's data in its user's cache.
"""

from __future__ import annotations

import time

from pipeline.cluster.lease import LEASES, is_renewed
from pipeline.cluster.storage import DATA, SEARCHES, TRAININGS, Storage
from pipeline.config.settings import SettingsError, load
from pipeline.shell import command, parser

DAY = 24 * 60 * 60
FOLDERS = (TRAININGS, SEARCHES, DATA)


def find_stale_folders(storage: Storage, days: float) -> list[tuple[str, str]]:
    """The folders, by their parents, in which no file changed for so many days."""
    limit = time.time() - days * DAY
    active = find_active_work(storage)
    return sorted(
        (parent, name)
        for parent in FOLDERS
        if not (parent == DATA and active)  # copies of data do not say who reads them
        for name, newest in storage.list_folders(parent).items()
        if newest < limit and not any(name.startswith(f"{work}.") for work in active)
    )


def find_active_work(storage: Storage) -> list[str]:
    """The names of the runs and searches that commands work on."""
    names = []
    for parent in (TRAININGS, SEARCHES):
        for file in storage.list_names(LEASES, parent):
            content = storage.read(LEASES, parent, file)
            if content and file.endswith(".json") and is_renewed(content):
                names.append(file.removesuffix(".json"))
    return names


def main() -> None:
    options = parser(__doc__, "pipeline.clean")
    options.add_argument("--older-than", type=float, default=0, metavar="DAYS", help="default 0")
    options.add_argument("--yes", action="store_true", help="delete, do not only list")
    arguments = options.parse_args()
    if not arguments.older_than >= 0:  # which NaN is not
        raise SettingsError(f"--older-than is {arguments.older_than}: give a number from 0")
    storage = Storage(load().cluster.storage)
    stale = find_stale_folders(storage, arguments.older_than)
    for parent, name in stale:
        print(storage.path(parent, name))
        if arguments.yes:
            storage.delete_folder(parent, name)
    print(f"{len(stale)} folders {'deleted' if arguments.yes else 'would be deleted (--yes)'}")


if __name__ == "__main__":
    command(main)
