"""Texts of others, such as paths and names, in files that would take some signs for commands.

A spreadsheet computes a cell that begins like a formula (OWASP, CSV Injection). Markdown makes
headings, links and HTML of signs.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How a formula begins in a spreadsheet, maybe after apostrophes, which the text had before."""
MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in r"\`*_<>&|#~$"})
"""Signs with a meaning in Markdown, and what stands for them."""


def to_csv(frame: pd.DataFrame, float_format: str | None = None) -> str:
    """Return a table as CSV, without its index, that a spreadsheet shows and does not compute.

    A text that begins like a formula, and its column's name, get an apostrophe in front, with which
    a spreadsheet shows the text. Numbers stay as they are.
    """
    cells = frame.set_axis(list(map(defuse, frame.columns)), axis=1)
    for place in range(frame.shape[1]):
        column = frame.iloc[:, place]
        if not pd.api.types.is_numeric_dtype(column):
            cells.isetitem(place, list(map(defuse, column)))
    text: str = cells.to_csv(index=False, float_format=float_format)
    return text


def defuse(value: Any) -> Any:
    """Return a value of a cell as `to_csv` writes it."""
    if not isinstance(value, str) or not FORMULA.match(value):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def restore(text: str) -> str:
    """Return the text that `defuse` received."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def escape_markdown(text: str) -> str:
    """Return a text as a line of Markdown that shows the text as it is.

    Brackets alone make neither a link nor its address.
    """
    line = " ".join(text.split()).translate(MARKDOWN)
    return line.replace("](", r"]\(").replace("]:", r"]\:")
