"""Errors of Python code that a run uses, such as a block of the user's: what, and where.

Ray, Ray Train and Ray Tune pass an exception on without its traceback, or with their own around it.
So the process in which the code fails makes a `CodeError` of the exception.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ianet.messages import has_message, is_below
from pipeline.secrecy import hide_secrets

ROOT = Path(__file__).parents[1]
GROUP = ("gloo", "nccl", "ncclcomm", "connection closed by peer")
"""Words of errors by which a process group says that another worker is gone."""


class CodeError(Exception):
    """Python code failed. As a text, a line with the error and the user's file and line.

    Attributes:
        text: the whole traceback.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason, text)  # by which the exception is pickled
        self.text = text

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def code_errors() -> Iterator[None]:
    """Make a `CodeError` of every exception but those that are reported in one line.

    Raises:
        CodeError: code within the context failed.
        ValueError, OSError: that `ianet` or `pipeline` raise, with a message for a person.
    """
    try:
        yield
    except CodeError:
        raise
    except Exception as error:
        is_message = isinstance(error, OSError) or has_message(error, ROOT)
        if is_message or _is_loss(error):
            raise
        raise explain(error) from None


def explain(error: BaseException) -> CodeError:
    """The error as a line with the project's file and line that failed, and its traceback.

    Both without secrets.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if is_below(frame.filename, ROOT)
    ]
    message = " ".join(str(error).split())[:300]
    reason = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if frames:
        path = Path(frames[-1].filename).relative_to(ROOT)
        reason += f", in {path}, line {frames[-1].lineno}: {frames[-1].line}"
    text = "".join(traceback.format_exception(error))
    return CodeError(hide_secrets(reason), hide_secrets(text))


def _is_loss(error: BaseException) -> bool:
    """Whether a worker of a group fails because another was lost."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in GROUP)
