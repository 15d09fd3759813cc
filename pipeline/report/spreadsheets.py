"""Tables as CSV that a spreadsheet shows and does not compute."""

from __future__ import annotations

from typing import Any

import pandas as pd

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""Signs with which a formula begins in a spreadsheet (OWASP, CSV Injection)."""


def to_csv(frame: pd.DataFrame, float_format: str | None = None) -> str:
    """The frame as CSV without its index.

    A text that begins like a formula, and its column's name, get an apostrophe in front, with which
    a spreadsheet shows the text. Numbers stay as they are.
    """
    shown = frame.map(_defuse).set_axis(list(map(_defuse, frame.columns)), axis=1)
    text: str = shown.to_csv(index=False, float_format=float_format)
    return text


def _defuse(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(FORMULAS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
