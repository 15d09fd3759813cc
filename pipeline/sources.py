"""The code that training, evaluation, figures of each network, and each reader, import.

DVC depends on files as a whole: a stage that depended on `ianet/` would retrain everything
at any edit. So this stage writes, for each network, the digests of the modules that are
imported on its behalf, and the training depends on that file alone; for each reader, likewise,
and the preparation of its data sets depends on that. A file changes only where one of those
modules does; comments and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

from pipeline.settings import load
from pipeline.shell import stage, write_whole

TARGET = Path("build/sources")
READERS = Path("build/readers")
ROOTS = {
    "train": ("ianet.network", "ianet.training"),
    "evaluate": (
        "ianet.network",
        "ianet.features",
        "ianet.retrieval",
        "ianet.single_shot",
        "ianet.receptive",
    ),
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
    settings = load()
    for reader in {dataset.reader for dataset in settings.datasets.values()}:
        _write(READERS / f"{reader}.json", (f"ianet.datasets.{reader}", "ianet.images"))
    for network, options in settings.networks.items():
        # A network that names places but no block has the default one of NetworkOptions, "ia".
        block = [f"ianet.blocks.{options.get('block', 'ia')}"] if options.get("after") else []
        for purpose, roots in ROOTS.items():
            _write(TARGET / network / f"{purpose}.json", (*roots, *block))


def _write(target: Path, roots: tuple[str, ...]) -> None:
    write_whole(target, json.dumps(closure(roots), indent=2) + "\n")


if __name__ == "__main__":
    with stage():
        main()
