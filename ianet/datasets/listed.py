"""Any set of images, listed in a CSV or Parquet file.

    path,person,camera,split
    images/0001.jpg,anna,entrance,train

Paths are relative to the file and lie beneath it. Persons and cameras are integers or text, a
person -1 is junk and dropped. The split is train, query or gallery. Other columns are left alone.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow

from ianet.datasets.listing import JUNK, SPLITS, Listing, counted, ordered
from ianet.datasets.source import image_opener, open_source, refuse_outside

KINDS = (".csv", ".parquet")
COLUMNS = ["path", "person", "camera", "split"]
EXPECTED = (
    f"a CSV or Parquet file with the columns {', '.join(COLUMNS)}, or a folder, zip or tar that "
    "holds one such file"
)


def read(source: Path, *, published: bool = True) -> Listing:
    """The images that a file lists.

    Args:
        source: the file, or a folder, zip or tar that holds one at any depth. As a source of the
            pipeline a folder is better: DVC sees whether anything in it was changed.
        published: no matter, as nothing was published about it.

    Raises:
        FileNotFoundError: no source, or no file in it.
        ValueError: several files, one that cannot be read, a column missing, or a wrong row.
    """
    if source.suffix.lower() in KINDS:
        files, name, where = open_source(source.parent, EXPECTED), source.name, f"{source}"
    else:
        files = open_source(source, EXPECTED)
        name = _only_table(source, files.paths())
        where = f"{source}/{name}"
    try:
        content = io.BytesIO(files.read(name))
    except OSError as error:
        raise FileNotFoundError(
            f"{where} cannot be read ({error}). Expected: {EXPECTED}"
        ) from error
    try:
        if name.lower().endswith(".csv"):
            # As text, as 007 and NA are names too.
            table = pd.read_csv(content, dtype=str, keep_default_na=False)
        else:
            table = pd.read_parquet(content)
    except (ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f"{where} is no CSV or Parquet file ({error}): write it anew") from error
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise ValueError(f"{where} has no column {', '.join(missing)}. Expected: {EXPECTED}")
    table = _checked(table[COLUMNS], where)
    beside = PurePosixPath(name).parent
    kept = table[table.person.astype(str) != str(JUNK)]
    paths = [(beside / path).as_posix() for path in kept.path]
    table = ordered(zip(paths, kept.person, kept.camera, kept.split, strict=True))
    return Listing(table, counted(table), image_opener(files))


def fits(paths: Sequence[str]) -> bool:
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


def _checked(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Persons and cameras as integers where all are, as text elsewhere."""
    for column in COLUMNS:
        empty = table[column].isna() | (table[column].astype(str).str.strip() == "")
        if empty.any():
            raise ValueError(f"{where}: image {empty.argmax() + 1} has no {column}: fill it in")
    table = table.assign(
        **{column: table[column].astype(str) for column in ("path", "split")},
        **{column: _integers_or_text(table[column]) for column in ("person", "camera")},
    )
    for number, (path, split) in enumerate(zip(table.path, table.split, strict=True), 1):
        refuse_outside(path, f"{where}: image {number}")
        if split not in SPLITS:
            raise ValueError(
                f"{where}: image {number} ({path}) is in split {split!r}: choose one of "
                f"{', '.join(SPLITS)}"
            )
    return table


def _integers_or_text(column: pd.Series) -> pd.Series:
    # 007 is no integer, as it would then be the same person as 7.
    text = column.astype(str)
    if text.str.fullmatch(r"0|-?[1-9]\d{0,17}").all():
        return text.astype("int64")
    return text
