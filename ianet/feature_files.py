"""Files of features: Parquet, NumPy's .npz, and CSV, each with the model that made them.

| suffix | holds |
|---|---|
| .parquet | the columns path, person, camera, feature (a list of D float32); the model under `ianet.model` and flip under `ianet.flip` in the metadata of its schema; written and read in blocks, with checksums |
| .npz | the arrays path, person, camera, feature (N, D), model and flip |
| .csv | the columns path, person, camera, model, flip, and a column for each of the D numbers, from 0; texts are those of `ianet.escapes.defuse` |

Persons and cameras are texts, or integers in files of other programs. An unknown person or camera
is "" and in Parquet null. `flip` is true or false, see `FeatureTable`, and false in files without
`flip`. Features of two models, or with and without `flip`, are never mixed, as no distance between
them means anything.
"""  # noqa: E501 - a row of a table

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ianet.escapes import defuse, restore
from ianet.feature_table import BLOCK, FeatureTable, Identity, concatenate
from ianet.files import build_whole

SUFFIXES = (".parquet", ".npz", ".csv")
MODEL, FLIP = b"ianet.model", b"ianet.flip"
FLIPS = {"true": True, "false": False}
LABELS = ("path", "person", "camera")
FOREIGN = (
    *(KeyError, TypeError, AttributeError, ValueError, OverflowError),
    *(EOFError, BadZipFile, pa.ArrowException, RuntimeError, TokenError),
)
"""What files raise that are damaged or hold something else, apart from OSError."""


def check_suffix(path: Path) -> None:
    """Raise ValueError unless a path has the suffix of a file of features."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} does not end in {', '.join(SUFFIXES)}: name the file so")


def write_features(path: Path, tables: Iterable[FeatureTable]) -> int:
    """Write features, in the format of the suffix. The file appears whole or not at all.

    Args:
        path: of the file.
        tables: of one model and one `flip`, at least one. Parquet is written as they come, other
            formats at once.

    Returns:
        The number of the pictures.

    Raises:
        ValueError: an unknown suffix.
    """
    check_suffix(path)
    with build_whole(path) as temporary:
        if path.suffix.lower() == ".parquet":
            return _write_parquet(temporary, tables)
        table = concatenate(tables)
        labels = (table.paths, table.persons, table.cameras)
        if path.suffix.lower() == ".npz":
            arrays: dict[str, Any] = {
                name: np.array(values, np.str_) for name, values in zip(LABELS, labels, strict=True)
            }
            arrays |= {"feature": table.features, "model": np.array(str(table.model))}
            arrays["flip"] = np.array(table.flip)
            with temporary.open("wb") as file:
                np.savez(file, **arrays)
        else:
            frame = pd.DataFrame(table.features)
            for place, (name, values) in enumerate(zip(LABELS, labels, strict=True)):
                frame.insert(place, name, list(map(defuse, values)))
            frame.insert(len(LABELS), "model", defuse(str(table.model)))
            frame.insert(len(LABELS) + 1, "flip", str(table.flip).lower())
            frame.to_csv(temporary, index=False, float_format="%.9g", na_rep="nan")
        return len(table)


def _write_parquet(path: Path, tables: Iterable[FeatureTable]) -> int:
    tables = iter(tables)
    first = next(tables)
    schema = pa.schema(
        [
            *(pa.field(name, pa.string()) for name in LABELS),
            pa.field("feature", pa.list_(pa.float32(), first.features.shape[1])),
        ],
        metadata={MODEL: str(first.model), FLIP: str(first.flip).lower()},
    )
    buffer: list[FeatureTable] = []
    count = 0
    with pq.ParquetWriter(path, schema, write_page_checksum=True) as writer:
        for table in itertools.chain([first], tables):
            buffer.append(table)
            count += len(table)
            if sum(map(len, buffer)) >= BLOCK:
                writer.write_table(_to_arrow(concatenate(buffer), schema))
                buffer = []
        if buffer:
            writer.write_table(_to_arrow(concatenate(buffer), schema))
    return count


def _to_arrow(table: FeatureTable, schema: pa.Schema) -> pa.Table:
    columns = [
        pa.array(table.paths, pa.string()),
        *(
            pa.array([value or None for value in values], pa.string())
            for values in (table.persons, table.cameras)
        ),
        pa.FixedSizeListArray.from_arrays(table.features.ravel(), table.features.shape[1]),
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def is_feature_file(path: Path) -> bool:
    """Return whether a path is a file of features; a CSV file may list pictures instead."""
    if path.suffix.lower() != ".csv":
        return path.suffix.lower() in SUFFIXES
    with path.open(errors="replace") as file:
        return "model" in [name.strip('"') for name in file.readline().strip().split(",")]


class FeatureFile:
    """A file of features, which is read in blocks.

    Attributes:
        path: of the file.
        model: that made the features.
        flip: see `FeatureTable`.
        size: D, the numbers of a feature.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            FileNotFoundError: no such file.
            ValueError: an unknown suffix, no regular file, or a file without features; one line.
        """
        check_suffix(path)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: `ianet embed` makes such a file")
        if not path.is_file():
            raise ValueError(f"{path} is no regular file: `ianet embed` makes such a file")
        self.path = path
        self._table: FeatureTable | None = None
        try:
            if path.suffix.lower() == ".parquet":
                schema = pq.read_schema(path)
                for name in LABELS:
                    _refuse_other_labels(name, schema.field(name).type)
                self.model = _parse_model(schema.metadata[MODEL].decode())
                self.flip = FLIPS[schema.metadata.get(FLIP, b"false").decode()]
                kind = schema.field("feature").type
                self.size = kind.list_size
                if not (
                    pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
                ):
                    raise ValueError(f"its features are {kind.value_type}, and no numbers")
                self._rows = pq.read_metadata(path).num_rows
                _refuse_empty(self._rows, self.size)
                return
            read = _read_npz if path.suffix.lower() == ".npz" else _read_csv
            self._table = read(path)
            _refuse_empty(*self._table.features.shape)
        except FOREIGN as error:
            raise ValueError(
                f"{path} holds no features of ianet ({_line(error)}): `ianet embed` makes a file "
                "that does"
            ) from error
        except (OSError, MemoryError) as error:
            raise _describe_damage(path, error) from error
        self.model, self.flip = self._table.model, self._table.flip
        self._rows, self.size = self._table.features.shape

    def __len__(self) -> int:
        return self._rows

    def labels(self) -> pd.DataFrame:
        """Return path, person and camera of each picture, "" where unknown."""
        if self._table is not None:
            return self._table.labels()
        with _name_file(self.path):
            columns = pq.read_table(
                self.path, columns=list(LABELS), page_checksum_verification=True
            )
            texts = {name: _to_texts(columns.column(name)) for name in LABELS}
            return pd.DataFrame(texts, dtype="str")

    def blocks(self) -> Iterator[FeatureTable]:
        """Yield the features of at most `BLOCK` pictures at a time.

        Raises:
            ValueError: a block that cannot be read, or a feature that is not finite or too large to
                be compared; one line.
        """
        first = 0
        for table in self._read():
            with np.errstate(over="ignore"):
                bad = ~np.isfinite(np.linalg.norm(table.features, axis=1))
            if bad.any():
                row = int(bad.argmax())
                raise ValueError(
                    f"{self.path}: the feature of row {first + row + 1} ({table.paths[row]}) holds "
                    "NaN or infinite values, or too large ones: embed the pictures again"
                )
            first += len(table)
            yield table

    def _read(self) -> Iterator[FeatureTable]:
        if self._table is not None:
            yield from self._table.blocks()
            return
        # A buffer would hold all that was read.
        options = {"pre_buffer": False, "page_checksum_verification": True}
        with _name_file(self.path), pq.ParquetFile(self.path, **options) as file:
            for batch in file.iter_batches(BLOCK):
                paths, persons, cameras = (_to_texts(batch.column(name)) for name in LABELS)
                features = _to_float32(batch.column("feature").flatten().to_numpy(False))
                features = features.reshape(len(batch), self.size)
                yield FeatureTable(features, paths, persons, cameras, self.model, flip=self.flip)


def read_features(path: Path) -> FeatureTable:
    """Return all features of a file.

    Raises:
        FileNotFoundError, ValueError: as `FeatureFile` and its blocks.
    """
    return concatenate(FeatureFile(path).blocks())


def refuse_mixed(model: Identity, other: Identity, where: str) -> None:
    """Raise ValueError unless features at a place are of a model.

    Args:
        model: that is expected.
        other: that made the features.
        where: the features are.
    """
    if model.digest != other.digest:
        raise ValueError(
            f"{where} holds features of {other}, and not of {model}: features of two models cannot "
            "be compared, so embed the pictures again"
        )


def _parse_model(text: str) -> Identity:
    name, separator, digest = text.partition(" sha256:")
    if not separator:
        raise ValueError(f"the model is {text[:80]!r}, not like 'name sha256:...'")
    return Identity(name, digest)


def _read_npz(path: Path) -> FeatureTable:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        for name in LABELS:
            if arrays[name].ndim != 1 or arrays[name].dtype.kind not in "Uiu":
                raise ValueError(f"the array {name} is no list of texts or integers")
        paths, persons, cameras = (arrays[name].astype(np.str_).tolist() for name in LABELS)
        features = _to_float32(arrays["feature"])
        model = _parse_model(str(arrays["model"]))
        flip = FLIPS[str(arrays["flip"]).lower()] if "flip" in arrays else False
    if features.ndim != 2 or not len(paths) == len(persons) == len(cameras) == len(features):
        raise ValueError(
            f"the array feature has the shape {features.shape}, and there are {len(paths)} paths"
        )
    return FeatureTable(features, paths, persons, cameras, model, flip=flip)


def _read_csv(path: Path) -> FeatureTable:
    texts = dict.fromkeys((*LABELS, "model", "flip"), str)
    frame = pd.read_csv(path, dtype=texts, keep_default_na=False)
    models = frame.pop("model").unique()
    if len(models) != 1:
        raise ValueError(f"it has {len(models)} models")
    flips = frame.pop("flip").str.lower().unique() if "flip" in frame else ["false"]
    if len(flips) != 1:
        raise ValueError("it has features with and without flip")
    paths, persons, cameras = (frame.pop(name).map(restore).tolist() for name in LABELS)
    model, flip = _parse_model(restore(models[0])), FLIPS[flips[0]]
    numbers = list(map(str, range(frame.shape[1])))
    if set(frame) != set(numbers):
        other = next(name for name in frame if name not in numbers)
        raise ValueError(
            f"its {len(numbers)} columns of numbers are not 0 to {len(numbers) - 1}, as one is "
            f"{other!r}"
        )
    with np.errstate(over="ignore"):
        features = frame[numbers].to_numpy(np.float32)
    return FeatureTable(features, paths, persons, cameras, model, flip=flip)


def _to_float32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return a copy of features as float32, infinite where they are beyond the range of float32.

    Raises:
        ValueError: the features are no real numbers.
    """
    if values.dtype.kind not in "fiu":
        raise ValueError(f"its features are {values.dtype}, and no real numbers")
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _refuse_other_labels(name: str, kind: pa.DataType) -> None:
    """Raise ValueError unless a column of Parquet holds texts or integers, or nothing."""
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
        *(pa.types.is_integer, pa.types.is_null),
    )
    if not any(test(values) for test in tests):
        raise ValueError(f"its column {name} is {kind}, and neither text nor integers")


def _to_texts(column: pa.Array | pa.ChunkedArray) -> list[str]:
    texts: list[str] = column.cast(pa.string()).fill_null("").to_pylist()
    return texts


def _refuse_empty(pictures: int, size: int) -> None:
    if not pictures:
        raise ValueError("it has no picture")
    if not size:
        raise ValueError("its features have no number")


@contextmanager
def _name_file(path: Path) -> Iterator[None]:
    """Name the file in an error of a part that cannot be read."""
    try:
        yield
    except (ValueError, pa.ArrowException, OSError, MemoryError) as error:
        raise _describe_damage(path, error) from error


def _describe_damage(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read ({_line(error)}): embed the pictures again")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
