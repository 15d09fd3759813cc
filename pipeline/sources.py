"""The code that training, evaluation and figures of each network really import.

DVC depends on files as a whole: a stage that depended on `ianet/` would retrain everything
at any edit. So this stage writes, for each network, the digests of the modules that are
imported on its behalf, and the training depends on that file alone. It changes only where
one of those modules does; comments and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

from pipeline.settings import load
from pipeline.shell import stage, write_whole

TARGET = Path("build/sources")
ROOTS = {
    "train": ("ianet.network", "ianet.training"),
    "evaluate": ("ianet.network", "ianet.features", "ianet.retrieval"),
    "figure": ("ianet.network", "ianet.receptive", "ianet.drawing", "ianet.datasets.synthetic"),
}


def closure(roots: tuple[str, ...]) -> dict[str, str]:
    """Module name to digest, for the modules of `ianet` that the roots import, however far."""
    digests: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        path = Path(*module.split(".")).with_suffix(".py")
        if module in digests or not path.is_file():
            continue
        tree = ast.parse(path.read_text())
        digests[module] = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [name.name for name in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return dict(sorted(digests.items()))


def main() -> None:
    for network, options in load().networks.items():
        # A network that names places but no block has the default one of NetworkOptions, "ia".
        block = [f"ianet.blocks.{options.get('block', 'ia')}"] if options.get("after") else []
        for purpose, roots in ROOTS.items():
            digests = json.dumps(closure((*roots, *block)), indent=2) + "\n"
            write_whole(TARGET / network / f"{purpose}.json", digests)


if __name__ == "__main__":
    with stage():
        main()
