"""CUHK03 (Li et al., DeepReID, CVPR 2014): 1,467 people, each before one of five camera pairs.

Its boxes were drawn twice, by hand ("labeled") and by a detector ("detected"). `cuhk-03.mat` is
MATLAB 7.3, hence HDF5, in which every array is transposed:

    labeled, detected    a cell for each pair: people x 10 cells, each a (3, W, H) uint8 image or
                         empty; columns 1-5 are of the pair's first camera, 6-10 of its second
    testsets             20 cells: (2, 100), pair and person of the test identities, from 1

Names of images are those of the new protocol's files: 1_034_2_07 is pair 1, person 34, camera 2,
column 7. The new protocol also supports a folder or archive of images like 0033_06.jpg. The numbers
are the identity through all pairs and the column, both from 0.

Two protocols that are never mixed:

- classic (Li et al.): 20 splits, 100 test identities and 1,367 to train on. Queries are of the
  first camera, the gallery is of the second. A gallery has an image for each identity, drawn
  anew for each query, and only CMC is defined ("single_shot"). The score of a network is the
  mean over splits, hence over seeds: seed s is of split s modulo 20.
- new (Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017):
  one split, 767 identities to train on and 700 to test, scored like Market-1501. Its files
  cuhk03_new_protocol_config_labeled.mat and ..._detected.mat (MATLAB 5, indices from 1) are at
  github.com/zhunzhong07/person-re-ranking.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat

from ianet.datasets.listing import (
    IMAGES,
    SPLITS,
    Listing,
    check_counts,
    count_images,
    sort_rows,
)
from ianet.datasets.source import Opener, image_opener, open_source, refuse_irregular
from ianet.options import refuse_unknown

BOXES = ("labeled", "detected")
PROTOCOLS = ("classic", "new")
PAIRS = (843, 440, 77, 58, 49)
"""People before each pair of cameras."""
COLUMNS = 10
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)
MAT = "cuhk-03.mat"

PUBLISHED = {
    ("labeled", "classic"): {"images": 14_096, "identities": 1_467},
    ("detected", "classic"): {"images": 14_097, "identities": 1_467},
    ("labeled", "new"): {"train images": 7_368, "query images": 1_400, "gallery images": 5_328},
    ("detected", "new"): {"train images": 7_365, "query images": 1_400, "gallery images": 5_332},
}
IDENTITIES = {
    "classic": {"splits": 20, "train identities": 1_367, "test identities": 100},
    "new": {"train identities": 767, "query identities": 700, "gallery identities": 700},
}
EXPECTED = (
    f"{MAT} of CUHK03 or its folder, or, for the new protocol, a folder, zip or tar of images "
    "named 0033_06.jpg; to be had from its authors, Li et al., CVPR 2014"
)

_NAME = re.compile(r"(\d{4})_(0\d)")


class Place(NamedTuple):
    """The place of an image in `cuhk-03.mat`; all numbers are from 1."""

    pair: int
    person: int
    column: int

    @property
    def camera(self) -> int:
        return 1 if self.column <= COLUMNS // 2 else 2

    @property
    def identity(self) -> int:
        """The person's number through all pairs, from 1."""
        return sum(PAIRS[: self.pair - 1]) + self.person

    @property
    def name(self) -> str:
        return f"{self.pair}_{self.person:03d}_{self.camera}_{self.column:02d}"


def read(
    source: Path,
    *,
    images: str,
    protocol: str,
    config: Path | None = None,
    published: bool = True,
) -> Listing:
    """Return the images of CUHK03.

    Args:
        source: `cuhk-03.mat`, or a folder with this file at any depth. For the new protocol also a
            folder, zip or tar of images (see above).
        images: "labeled" or "detected".
        protocol: "classic" or "new".
        config: for the new protocol, its file for these images.
        published: whether the counts must be those published; False allows a subset.

    Returns:
        Persons are numbered from 1 through all pairs, cameras are 1 and 2.

    Raises:
        FileNotFoundError: no source, or no config.
        ValueError: damaged or unexpected content, a wrong option, or counts that are not the
            published.
    """
    refuse_unknown("images", images, BOXES)
    refuse_unknown("protocol", protocol, PROTOCOLS)
    if protocol == "new" and config is None:
        raise ValueError(
            f"protocol new needs config: the path of cuhk03_new_protocol_config_{images}.mat"
        )
    if protocol == "classic" and config is not None:
        raise ValueError("protocol classic takes no config: leave it out, or take protocol new")
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist. Expected: {EXPECTED}")
    mat = _find_mat(source)
    if protocol == "classic" and mat is None:
        raise ValueError(
            f"the classic protocol's test sets are in {MAT} only, and {source} is not it: name it "
            "as source, or take protocol new"
        )
    paths, opener, testsets = _read_mat(mat, images) if mat else (*_read_files(source), [])
    if config:
        table = _new_split(paths, config, source, published)
        counts = count_images(table)
    else:
        table = _classic_splits(paths, testsets, source)
        counts = _classic_counts(table, testsets)
    if published:
        expected = {**PUBLISHED[images, protocol], **IDENTITIES[protocol]}
        check_counts(source, f"CUHK03 {images}", counts, expected)
    return Listing(table, counts, opener, "ranking" if config else "single_shot")


def fits(paths: Sequence[str]) -> bool:
    """Return whether the paths are in this layout."""
    if any(PurePosixPath(path).name == MAT for path in paths):
        return True
    images = [path for path in paths if path.lower().endswith(IMAGES)]
    folders = {PurePosixPath(path).parent for path in images}
    return len(folders) == 1 and all(map(_match_name, images))


def _match_name(path: str) -> re.Match[str] | None:
    """Return identity and column of an image, both from 0 as text, or None for other files."""
    where = PurePosixPath(path)
    return _NAME.fullmatch(where.stem) if where.suffix.lower() in IMAGES else None


def _find_mat(source: Path) -> Path | None:
    """Return the path of cuhk-03.mat, if there is one. HDF5 cannot be read within an archive."""
    if source.suffix == ".mat":
        return source
    return min(source.rglob(MAT), default=None) if source.is_dir() else None


def _read_mat(
    path: Path, images: str
) -> tuple[dict[Place, str], Opener, list[set[tuple[int, int]]]]:
    """Return images' names, a function that decodes an image, and (pair, person) by test set."""
    refuse_irregular(path)
    try:
        file = h5py.File(path, "r")
        # Cells are references, n x 1 or 1 x n of them.
        pairs = [file[reference][:].T for reference in np.ravel(file[images])]
        testsets = [
            {_read_person(*numbers) for numbers in file[reference][:].T}
            for reference in np.ravel(file["testsets"])
        ]
        if not testsets:
            raise ValueError("its testsets are empty")
        cells = {
            Place(pair, person + 1, column + 1): reference
            for pair, people in enumerate(pairs, 1)
            for (person, column), reference in np.ndenumerate(people)
            # MATLAB writes an empty cell as its size, which is not three-dimensional.
            if reference and file[reference].ndim == 3
        }
    except Exception as error:  # h5py raises errors of many types for a damaged file
        raise ValueError(
            f"{path} is damaged or not CUHK03's {MAT} ({error}): fetch it again"
        ) from error
    by_name = {place.name: reference for place, reference in cells.items()}

    def open_image(name: str) -> Image.Image:
        try:
            return Image.fromarray(file[by_name[name]][:].transpose(2, 1, 0))
        except Exception as error:  # as above
            raise ValueError(
                f"the image {name} of {path} cannot be read ({error}): fetch it again"
            ) from error

    return {place: place.name for place in cells}, open_image, testsets


def _read_person(pair: float, person: float) -> tuple[int, int]:
    if pair % 1 or person % 1:  # also of NaN
        raise ValueError(f"a test set holds pair {pair}, person {person}")
    return int(pair), int(person)


def _read_files(source: Path) -> tuple[dict[Place, str], Opener]:
    """Return the paths of images, and a function that decodes an image."""
    files = open_source(source, EXPECTED)
    first = np.cumsum([0, *PAIRS])  # identity of each pair
    paths: dict[Place, str] = {}
    for path in files.paths():
        name = _match_name(path)
        if name and int(name[1]) < first[-1]:
            pair = int(np.searchsorted(first, int(name[1]), side="right"))
            place = Place(pair, int(name[1]) - int(first[pair - 1]) + 1, int(name[2]) + 1)
            if place in paths:
                raise ValueError(
                    f"{source} holds the same image twice, {paths[place]} and {path}: name the "
                    "folder of either boxes as source"
                )
            paths[place] = path
    if not paths:
        raise FileNotFoundError(f"{source} holds no image of CUHK03. Expected: {EXPECTED}")
    return paths, image_opener(files)


def _new_split(
    paths: dict[Place, str], config: Path, source: Path, published: bool
) -> pd.DataFrame:
    if not config.exists():
        raise FileNotFoundError(
            f"{config} does not exist: it is at github.com/zhunzhong07/person-re-ranking"
        )
    refuse_irregular(config)
    variables = ["filelist", *(f"{split}_idx" for split in SPLITS)]
    _refuse_crash(config, variables)
    try:
        content = loadmat(config, variable_names=variables)
        names = [str(cell[0]).removesuffix(".png") for cell in content["filelist"].ravel()]
        splits = {
            name: split
            for split in SPLITS
            for name in _select(names, content[f"{split}_idx"].ravel())
        }
    except Exception as error:  # scipy raises errors of many types for a damaged file
        raise ValueError(
            f"{config} is damaged or no file of the new protocol ({error}): fetch it again"
        ) from error
    missing = set(names) - {place.name for place in paths}
    if published and (missing or len(names) != len(paths)):
        raise ValueError(
            f"{config.name} is for {len(names):,} images; {source} has {len(paths):,} and lacks "
            f"{len(missing):,} of those: take the file for these images"
        )
    return sort_rows(
        (path, place.identity, place.camera, splits[place.name])
        for place, path in paths.items()
        if place.name in splits
    )


def _refuse_crash(config: Path, variables: Sequence[str]) -> None:
    """Raise ValueError if SciPy crashes at a file, as at a wrong class of a variable.

    Another process reads the file first, as a crash ends the process that reads.
    """
    code = "import sys, scipy.io; scipy.io.loadmat(sys.argv[1], variable_names=sys.argv[2:])"
    words = [sys.executable, "-P", "-c", code, str(config), *variables]
    trial = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if -trial.returncode in CRASHES:
        name = signal.Signals(-trial.returncode).name
        raise ValueError(f"{config} is damaged (SciPy ends by {name}): fetch it again")


def _select(names: Sequence[str], numbers: NDArray[np.integer]) -> list[str]:
    """Return the names of these numbers, from 1."""
    if not np.isin(numbers, np.arange(1, len(names) + 1)).all():
        raise IndexError(f"an index is not in 1 to {len(names)}")
    return [names[number - 1] for number in numbers.astype(int)]


def _classic_splits(
    paths: dict[Place, str], testsets: list[set[tuple[int, int]]], source: Path
) -> pd.DataFrame:
    people = {place[:2] for place in paths}
    for number, test in enumerate(testsets, 1):
        if not test <= people or len(test) != len(testsets[0]):
            raise ValueError(
                f"test set {number} of {source} names people without images, or another number "
                "of people than the first: fetch it again"
            )
    rows = []
    for place, path in sorted(paths.items()):
        test_split = "query" if place.camera == 1 else "gallery"
        splits = [test_split if place[:2] in test else "train" for test in testsets]
        rows.append((path, place.identity, place.camera, *splits))
    columns = [f"split_{number}" for number in range(len(testsets))]
    return pd.DataFrame(rows, columns=["path", "person", "camera", *columns])


def _classic_counts(table: pd.DataFrame, testsets: list[set[tuple[int, int]]]) -> dict[str, int]:
    people, test_people = table.person.nunique(), len(testsets[0])
    return {
        "images": len(table),
        "identities": people,
        "splits": len(testsets),
        "train identities": people - test_people,
        "test identities": test_people,
    }
