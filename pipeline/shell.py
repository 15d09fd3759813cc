"""What every stage's command shares: how a mistake of the user's is told."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stage() -> Iterator[None]:
    """Bad input ends a command with one clear line, not a traceback; Ctrl-C ends it quietly,
    and SIGTERM as Ctrl-C does, with what it began cleaned up.

    Other exceptions are defects of ours and keep their traceback.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")


@contextmanager
def only_one(lock: Path, doing: str) -> Iterator[None]:
    """Refuse what another process is at already: DVC killed leaves a training running.

    Raises:
        ValueError: it says so, and how to find that process.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is {doing}: wait for it, or stop it (`fuser {lock}` tells which)"
            ) from None
        yield


def write_whole(target: Path, content: str | bytes) -> None:
    """A file that appears whole or not at all, in a folder that may not exist yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(target)


def run_parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line of the four words of a run, the fields of `pipeline.plan.Run`."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", help="name in params.yaml")
    parser.add_argument("network", help="name in params.yaml")
    parser.add_argument("recipe", help="name in params.yaml")
    parser.add_argument("seed", type=int)
    return parser
