"""The command line: its commands, and how an error ends a command.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | done, and the answer is no: a data set has problems, an export differs |
| 2 | bad input: one line on standard error |
| 130 | stopped by Ctrl-C |
| 141 | a pipe was closed, as by head: the code of a program that SIGPIPE ends |

`IANET_DEBUG=1` shows the traceback of an error. The line of an error says so, unless a `raise` of
ianet made the error for a person. An exception that is neither ValueError nor OSError is a defect
and shows its own.
"""

from __future__ import annotations

import importlib
import io
import os
import pkgutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import ianet
from ianet.cli import commands
from ianet.messages import has_message

ROOT = Path(ianet.__file__).parent
DEBUG = "IANET_DEBUG"  # variable: a traceback in place of one line
CLOSED = 141

app = typer.Typer(
    help="Person re-identification on photos of your own: features, search, comparison, scores.",
    rich_markup_mode=None,  # rich would take as long as all else
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(version: bool) -> None:
    if version:
        typer.echo(f"ianet {ianet.__version__}")
        raise typer.Exit


@app.callback()
def _describe(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


for module in pkgutil.iter_modules(commands.__path__):
    command = getattr(importlib.import_module(f"{commands.__name__}.{module.name}"), module.name)
    app.command(module.name)(command)


def run() -> int | None:
    """Run the command of this process's arguments; return its exit code, None for 0."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: what is printed goes nowhere
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - until the end
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # signs that the encoding lacks
    try:
        _check_arguments(sys.argv[1:])
        code: int | None = app(prog_name="ianet", standalone_mode=False)
        sys.stdout.flush()  # a closed pipe is found here, and not at the end of Python
        return code
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        return _close()  # typer and rich end with 1, which would mean no
    except BrokenPipeError:
        return _close()
    except typer.TyperException as error:
        if not sys.argv[1:]:
            print(error.format_message(), file=sys.stderr)  # the help
            return 2
        _end(error.format_message())
    except (ValueError, OSError) as error:
        if os.environ.get(DEBUG):
            raise
        _end(str(error) if has_message(error, ROOT) else f"{error} ({DEBUG}=1 shows the traceback)")


def _check_arguments(arguments: Sequence[str]) -> None:
    """Raise ValueError if an argument is empty, or not UTF-8.

    pathlib takes an empty path for the working directory. Files and answers hold names as text.
    """
    if "" in arguments:
        raise ValueError("an argument is empty: a variable of the command may be unset")
    if not all(map(str.isascii, arguments)):
        from ianet.datasets.source import refuse_undecodable  # imports what few commands need

        for argument in arguments:
            refuse_undecodable(argument, "the command")


def _end(message: str) -> NoReturn:
    with suppress(OSError):
        print("error:", " ".join(message.split()), file=sys.stderr)
    _drop_output()
    sys.exit(2)


def _close() -> int:
    _drop_output()
    return CLOSED


def _drop_output() -> None:
    """Drop what cannot be written. Python would try again at its end, and end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
