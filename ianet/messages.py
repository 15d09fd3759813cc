"""Which errors have a message for a person."""

from __future__ import annotations

import traceback
from pathlib import Path


def has_message(error: BaseException, root: Path) -> bool:
    """Return whether a `raise` below a folder made a ValueError or an OSError.

    Such an error has a message of one line. Python and packages raise the others.

    Args:
        error: that was raised.
        root: of the code with messages for a person. Packages that are installed below the folder
            do not count.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, ValueError | OSError) or not frames:
        return False
    last = frames[-1]
    return is_below(last.filename, root) and str(last.line).startswith("raise ")


def is_below(file: str, root: Path) -> bool:
    """Return whether a file is below a folder, and of no package that is installed there."""
    path = Path(file)
    return path.is_relative_to(root) and "site-packages" not in path.relative_to(root).parts
