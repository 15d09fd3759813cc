"""Delete checkpoints and copies of data that unfinished work left in the storage.

    python -m pipeline.clean                       list what would be deleted
    python -m pipeline.clean --older-than 7 --yes  delete what nobody touched for 7 days

Checkpoints of a training or search under way stay, also where the work began meanwhile. Copies of
data stay while any training or search is under way. An evaluation holds no lease: stop evaluations
first. A training or search without its checkpoints begins anew. Each node has copies of a store's
data in its user's cache.
"""

from __future__ import annotations

import time

from pipeline.cluster.lease import LEASES, Lease, is_renewed
from pipeline.cluster.storage import DATA, SEARCHES, TRAININGS, Storage
from pipeline.config.settings import SettingsError, load
from pipeline.shell import command, parser

DAY = 24 * 60 * 60
FOLDERS = (TRAININGS, SEARCHES, DATA)
BEST = ".best"


def find_stale_folders(storage: Storage, limit: float) -> list[tuple[str, str]]:
    """The folders, by their parents, in which no file changed since a time in seconds."""
    active = find_active_work(storage)
    return sorted(
        (parent, name)
        for parent in FOLDERS
        if not (parent == DATA and active)  # copies of data do not say who reads them
        for name, newest in storage.list_folders(parent).items()
        if newest < limit and not any(name.startswith(f"{work}.") for work in active)
    )


def make_lease(storage: Storage, parent: str, name: str) -> Lease:
    """The lease under which a command writes a folder of a training or of a search."""
    folder = name.removesuffix(".progress")
    if folder.endswith(BEST):  # the training of a search's best trial
        parent, folder = SEARCHES, folder.removesuffix(BEST)
    key = folder.rpartition(".")[0] or folder  # without the digest
    return Lease(storage, f"{parent}/{key}", f"cleaning up after {key}")


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
    limit = time.time() - arguments.older_than * DAY
    stale = find_stale_folders(storage, limit)
    count = 0
    for parent, name in stale:
        reason = delete(storage, parent, name, limit) if arguments.yes else ""
        count += not reason
        print(f"{storage.path(parent, name)}{reason and ' stays: '}{reason}")
    print(f"{count} folders {'deleted' if arguments.yes else 'would be deleted (--yes)'}")


def delete(storage: Storage, parent: str, name: str, limit: float) -> str:
    """Delete a folder, unless work began in the folder after the folders were listed.

    Returns:
        Why the folder stays; "" where the folder is deleted.
    """
    if parent == DATA:
        if find_active_work(storage):
            return "a training or search is under way"
        storage.delete_folder(parent, name)
        return ""
    is_deleted = False
    try:
        with make_lease(storage, parent, name):
            if storage.find_newest(parent, name) >= limit:
                return "a file is new"
            storage.delete_folder(parent, name)
            is_deleted = True
    except SettingsError as error:
        return "" if is_deleted else str(error)
    return ""


if __name__ == "__main__":
    command(main)
