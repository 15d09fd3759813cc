"""What each network, recipe and data set is made of: its options and the code that it imports.

DVC depends on files as a whole: a stage that depended on `ianet/` would retrain everything
at any edit. So this stage writes, for each network, its options and the digests of the modules
that are imported on its behalf, and the training depends on that file alone; likewise the
preparation of a data set on its own, the packing of images, and what draws, compares or counts.
A file changes only where one of those modules does, comments and layout not counted, or one of
the options. (Stages that named their options as DVC's `params` would each read params.yaml anew,
a sixth of a second every time.)
"""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.settings import load
from pipeline.shell import stage, write_whole

TARGET = Path("build/sources")
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
OTHERS = {
    "packing": ("ianet.packing",),
    "drawing": ("ianet.drawing",),
    "comparison": ("ianet.comparison",),
    "cost": ("ianet.cost", "ianet.features"),
}
PREPARING = ("reader", "source", "options", "published", "held_out")
"""Options of a data set that its preparation depends on."""


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
    for name, dataset in settings.datasets.items():
        prepared = dataset.model_dump(mode="json", include=set(PREPARING))
        modules = closure((f"ianet.datasets.{dataset.reader}",))
        _write(f"datasets/{name}", {"options": prepared, "modules": modules})
    for name, roots in OTHERS.items():
        _write(name, {"modules": closure(roots)})
    for name, recipe in settings.recipes.items():
        _write(f"recipes/{name}", recipe.model_dump(mode="json", exclude={"minutes"}))
    for name, options in settings.networks.items():
        # A network that names places but no block has the default one of NetworkOptions, "ia".
        block = [f"ianet.blocks.{options.get('block', 'ia')}"] if options.get("after") else []
        for purpose, roots in ROOTS.items():
            content = {"options": options, "modules": closure((*roots, *block))}
            _write(f"networks/{name}/{purpose}", content)


def _write(name: str, content: dict[str, Any]) -> None:
    write_whole(TARGET / f"{name}.json", json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    with stage():
        main()
