"""What commands share: options, progress, and answers as tables and as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

WIDE = 10_000  # columns of what is no terminal

ModelSource = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Folder of a model, or a zip or tar of the folder.")
]
Batch = Annotated[int, typer.Option(min=1, help="Pictures of one forward pass.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:1.")]
Precision = Annotated[
    Literal["float32", "bfloat16"], typer.Option(help="bfloat16 is faster on a GPU.")
]
Flip = Annotated[
    bool, typer.Option("--flip", help="Average with the features of the mirrored picture.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Go on without pictures that cannot be decoded.")
]
Labels = Annotated[
    Literal["names", "folders", "none"],
    typer.Option(
        help="Where persons and cameras come from: names like 0002_c1s1_000451_03.jpg; folders, "
        "one a person, with the camera before the first _ of a name; or none."
    ),
]
Dataset = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET",
        help="Folder, archive (zip, tar), table (csv, parquet) or cuhk-03.mat, which a reader of "
        "ianet/datasets reads.",
    ),
]
Reader = Annotated[
    str | None,
    typer.Option(
        help="Reader of the data set, such as market1501, folders, listed or persons. Without it "
        "the layout decides."
    ),
]
ReaderOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="An option of the reader, such as published=false for a part of a published set.",
    ),
]
Cameras = Annotated[
    Literal["respect", "ignore"],
    typer.Option(
        help="respect: a match is from another camera than the query. ignore: from any camera; "
        "only the query's own picture is left out."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def parse_options(texts: list[str] | None) -> dict[str, str]:
    """Return options by name.

    Raises:
        ValueError: a text without "=".
    """
    for text in texts or []:
        if "=" not in text:
            raise ValueError(f"--option {text}: write it as name=value")
    return dict(text.split("=", 1) for text in texts or [])


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error, if that is a terminal.

    Args:
        what: is done, for the bar.
        total: number of the steps.

    Yields:
        A function that takes the number of steps done since its last call.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:3], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as display:
        task = display.add_task(what, total=total)
        yield lambda steps: display.advance(task, steps)


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 picture" or "1,000 pictures"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def show_step(what: str) -> AbstractContextManager[object]:
    """Return a spinner on standard error, if that is a terminal, for a step without a count.

    Nothing is printed meanwhile.

    Args:
        what: is done, such as "exporting".
    """
    from rich.console import Console

    return Console(stderr=True).status(what)


def print_json(answer: Any) -> None:
    """Print an answer as one JSON document, with escapes where the output is not UTF-8."""
    is_utf8 = "utf" in (sys.stdout.encoding or "").lower()
    print(json.dumps(answer, indent=2, ensure_ascii=not is_utf8))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns, numbers to the right. Only a terminal breaks long lines."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    rows = [list(row) for row in rows]
    for number, column in enumerate(columns):
        is_number = all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    is_terminal = sys.stdout.isatty()
    Console(width=None if is_terminal else WIDE).print(table)


def print_note(text: str) -> None:
    """Print a line for people, on standard error."""
    print(text, file=sys.stderr)
