"""What every stage's command shares: how a mistake of the user's is told."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stage() -> Iterator[None]:
    """Bad input ends a command with one clear line, not a traceback; Ctrl-C ends it quietly.

    Other exceptions are defects of ours and keep their traceback.
    """
    try:
        yield
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


def run_arguments(doc: str | None) -> dict[str, Any]:
    """The four words of a run on the command line, as fields of `pipeline.plan.Run`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="name in params.yaml")
    parser.add_argument("network", help="name in params.yaml")
    parser.add_argument("recipe", help="name in params.yaml")
    parser.add_argument("seed", type=int)
    return vars(parser.parse_args())
