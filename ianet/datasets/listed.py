"""Any set of images, listed in a CSV or Parquet file.

    path,person,camera,split
    images/0001.jpg,anna,entrance,train

Paths are relative to the folder of the file and stay beneath this folder. Persons and cameras are
integers or text. Images of person -1 are junk and are ignored. The split is train, query or
gallery. Other columns are ignored. A camera that is unknown is left empty, and the column may be
missing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow

from ianet.datasets.listing import JUNK, SPLITS, Listing, count_images, read_csv, sort_rows
from ianet.datasets.source import image_opener, open_source, refuse_outside

KINDS = (".csv", ".parquet")
COLUMNS = ["path", "person", "camera", "split"]
REQUIRED = ["path", "person", "split"]
EXPECTED = (
    f"a CSV or Parquet file with the columns {', '.join(COLUMNS)}, or a folder, zip or tar that "
    "holds one such file"
)


def read(source: Path, *, published: bool = True) -> Listing:
    """Return the images that a file lists.

    Args:
        source: the file, or a folder, zip or tar with one such file at any depth. As a source of
            the pipeline a folder is better: DVC then detects changes of the images.
        published: without effect, as there are no published counts.

    Raises:
        FileNotFoundError: no source, or no such file in the source.
        ValueError: several files, an unreadable file, a column missing, or a wrong row.
    """
    if source.suffix.lower() in KINDS:
        files, name, where = open_source(source.parent, EXPECTED), source.name, f"{source}"
    else:
        files = open_source(source, EXPECTED)
        name = _only_table(source, files.paths())
        where = f"{source}/{name}"
    try:
        content = files.read(name)
    except ValueError as error:  # no regular file
        raise ValueError(f"{where} cannot be read ({error})") from error
    except OSError as error:
        raise FileNotFoundError(
            f"{where} cannot be read ({error}). Expected: {EXPECTED}"
        ) from error
    try:
        is_csv = name.lower().endswith(".csv")
        table = read_csv(content) if is_csv else pd.read_parquet(io.BytesIO(content))
    except (ValueError, OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{where} is no CSV or Parquet file ({error}): write it anew") from error
    table.columns = table.columns.astype(str).str.strip()
    if "camera" not in table:
        table["camera"] = ""
    wrong = [column for column in COLUMNS if list(table.columns).count(column) != 1]
    if wrong:
        raise ValueError(
            f"{where} has no column {', '.join(wrong)}, or several. Expected: {EXPECTED}"
        )
    table = _check(table[COLUMNS], where)
    folder = PurePosixPath(name).parent
    images = table[table.person.astype(str) != str(JUNK)]
    paths = [(folder / path).as_posix() for path in images.path]
    table = sort_rows(zip(paths, images.person, images.camera, images.split, strict=True))
    return Listing(table, count_images(table), image_opener(files))


def fits(paths: Sequence[str]) -> bool:
    """Return whether there is exactly one such file."""
    return sum(path.lower().endswith(KINDS) for path in paths) == 1


def _only_table(source: Path, paths: Sequence[str]) -> str:
    tables = [path for path in paths if path.lower().endswith(KINDS)]
    if not tables:
        raise FileNotFoundError(f"{source} holds no table. Expected: {EXPECTED}")
    if len(tables) > 1:
        raise ValueError(
            f"{source} holds {', '.join(tables[:5])}: name the one that counts as source"
        )
    return tables[0]


def _check(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return the table without blanks around its values; a gap is "".

    Persons and cameras are integers if all are, else text.
    """
    table = table.astype(object).where(table.notna(), "")  # some types take no "" for a gap
    table = table.astype(str).apply(lambda column: column.str.strip())
    for column in REQUIRED:
        empty = table[column] == ""
        if empty.any():
            raise ValueError(f"{where}: image {empty.argmax() + 1} has no {column}: fill it in")
    table = table.assign(
        **{column: _integers_or_text(table[column]) for column in ("person", "camera")}
    )
    for number, (path, split) in enumerate(zip(table.path, table.split, strict=True), 1):
        refuse_outside(path, f"{where}: image {number}")
        if split not in SPLITS:
            raise ValueError(
                f"{where}: image {number} ({path}) is in split {split!r}: choose one of "
                f"{', '.join(SPLITS)}"
            )
    return table


def _integers_or_text(text: pd.Series) -> pd.Series:
    # 007 is no integer: as integers, 007 and 7 would be the same person. pandas writes integers
    # with a gap among them as 7.0.
    if text.str.fullmatch(r"(0|-?[1-9]\d{0,17})(\.0)?").all():
        return text.str.removesuffix(".0").astype("int64")
    return text
