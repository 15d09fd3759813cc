"""The program `ianet`, and its end by Ctrl-C, which may come while commands are imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command of this process's arguments."""
    try:
        from ianet.cli.app import run

        code = run()
    except KeyboardInterrupt:
        code = 130
    if code == 130:
        print("stopped", file=sys.stderr)
    sys.exit(code)
