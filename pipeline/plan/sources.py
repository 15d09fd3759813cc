"""What each network, recipe and data set is made of: its options, files and code.

    python -m pipeline.plan.sources

DVC depends on files as a whole: a stage that depended on `ianet/` would retrain everything at any
edit. So this stage writes a file for each network. The file holds the network's options, and the
digests of the files that it names and of the modules that are imported on its behalf. `train`
depends on that file alone.
The same holds for recipes, data sets, and the code of each kind of stage.

A module's digest is that of its source without comments and blank lines. So a comment makes nothing
stale, and neither does another version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ianet.files import digest_file, write_whole
from ianet.options import BACKBONES
from pipeline.config.settings import Dataset, Settings, SettingsError, load
from pipeline.plan.runs import MODEL_WEIGHTS, find_start
from pipeline.shell import command

SOURCES = Path("build/sources")
TEMPLATE = Path("pipeline/report/page.html.jinja")
NETWORK_ROOTS = {
    "train": ("ianet.network", "ianet.training.fit"),
    "evaluate": (
        "ianet.network",
        "ianet.features",
        "ianet.protocols",
        "ianet.diagnostics",
    ),
    "figure": (
        "ianet.network",
        "ianet.attention",
        "ianet.synthetic.portrait",
    ),
}
"""Purpose to the modules of `ianet` from which imports are followed, for each network."""
STAGE_CODE = {
    "synthesize": (("ianet.synthetic.archive",), ("pipeline.stages.synthesize",)),
    "prepare": ((), ("pipeline.stages.prepare", "pipeline.data.splits", "pipeline.data.readers")),
    "pack": (("ianet.packing",), ("pipeline.stages.pack", "pipeline.data.readers")),
    "train": (
        (),
        ("pipeline.training.worker", "pipeline.data.splits", "pipeline.cluster.resources"),
    ),
    "evaluate": (
        ("ianet.cameras", "ianet.cost"),
        (
            "pipeline.stages.evaluate",
            "pipeline.scoring",
            "pipeline.data.cameras",
            "pipeline.data.splits",
        ),
    ),
    "model": (("ianet.model", "ianet.comparison"), ("pipeline.stages.model",)),
    "search": (
        ("ianet.escapes",),
        (
            "pipeline.stages.search",
            "pipeline.search.space",
            "pipeline.search.trial",
            "pipeline.search.results",
        ),
    ),
    "table": (
        ("ianet.cameras", "ianet.comparison", "ianet.drawing", "ianet.escapes"),
        (
            "pipeline.stages.table",
            "pipeline.report.cells",
            "pipeline.report.page",
        ),
    ),
    "curve": (
        ("ianet.cameras", "ianet.comparison", "ianet.drawing", "ianet.escapes"),
        ("pipeline.stages.curve", "pipeline.report.cells"),
    ),
    "figure": ((), ("pipeline.stages.figure", "pipeline.report.relation_maps")),
    "ranks": (
        ("ianet.ranks_page", "ianet.drawing"),
        (
            "pipeline.stages.ranks",
            "pipeline.report.ranked_lists",
            "pipeline.data.cameras",
            "pipeline.data.splits",
        ),
    ),
    "blocks": (
        ("ianet.escapes",),
        ("pipeline.stages.blocks", "pipeline.report.blocks", "pipeline.report.page"),
    ),
    "cost": (
        ("ianet.cost", "ianet.escapes", "ianet.network"),
        ("pipeline.stages.cost", "pipeline.report.costs", "pipeline.report.page"),
    ),
    "report": (
        (
            "ianet.cameras",
            "ianet.drawing",
            "ianet.escapes",
            "ianet.packed_file",
            "ianet.ranks_page",
        ),
        (
            "pipeline.stages.report",
            "pipeline.report.cost_scores",
            "pipeline.report.curves",
            "pipeline.report.findings",
            "pipeline.report.overview",
            "pipeline.report.page",
            "pipeline.report.run_list",
            "pipeline.report.samples",
        ),
    ),
}
"""Stage to modules of `ianet`, whose imports are followed, and of `pipeline`, as they stand.

Of `pipeline` only what decides a result is named. What moves bytes or reports progress is not.
"""
PREPARATION = ("reader", "source", "options", "published", "cameras", "held_out")
"""Options of a data set that its preparation depends on."""


@cache
def digest_code(source: str) -> str:
    """SHA-256 of Python source without comments, blank lines and spaces at the ends of lines.

    Comments are found by the tokenizer and cut out of the text. The text of the tokens would
    differ between versions of Python. Lines within a string stand as they are.
    """
    lines = source.split("\n")
    inside: set[int] = set()  # lines that begin and end within a string
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        (first, column), (last, _) = token.start, token.end
        if token.type == tokenize.COMMENT:
            lines[first - 1] = lines[first - 1][:column]
        elif token.type not in (tokenize.NEWLINE, tokenize.NL):
            inside |= set(range(first, last))
    code = [
        line if number in inside else line.rstrip()
        for number, line in enumerate(lines, start=1)
        if line.strip() or number in inside
    ]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def module_path(module: str) -> Path | None:
    """The file of a module or package of the project; None for a name that is no module."""
    path = Path(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


class Code:
    """The modules of the project, each read once."""

    def __init__(self) -> None:
        self.modules: dict[str, tuple[str, list[str]] | None] = {}

    def read(self, module: str) -> tuple[str, list[str]] | None:
        """Digest and imports of a module; None for a name that is no module."""
        if module not in self.modules:
            path = module_path(module)
            self.modules[module] = None if path is None else _read_module(path)
        return self.modules[module]

    def follow_imports(self, roots: Iterable[str]) -> dict[str, str]:
        """Digests by module, for the modules of `ianet` that the roots import, however far."""
        digests: dict[str, str] = {}
        queue = list(roots)
        while queue:
            module = queue.pop()
            if module in digests or not module.startswith("ianet."):
                continue
            content = self.read(module)
            if content is not None:
                digests[module], imports = content
                queue += imports
        return dict(sorted(digests.items()))

    def digest_stage(self, stage: str) -> dict[str, str]:
        """Digests by module, for the code of a stage."""
        roots, modules = STAGE_CODE[stage]
        digests = self.follow_imports(roots)
        for module in modules:
            content = self.read(module)
            assert content is not None, module
            digests[module] = content[0]
        if "pipeline.report.page" in modules:
            digests[str(TEMPLATE)] = hashlib.sha256(TEMPLATE.read_bytes()).hexdigest()
        return digests

    def digest_training(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Digests by module, for the code that decides the weights of a network with options."""
        return self.follow_imports(network_roots(options, "train")) | self.digest_stage("train")

    def digest_trials(self, options: Mapping[str, Any]) -> dict[str, str]:
        """Digests by module, for the code that decides the trials of a search."""
        scoring = self.follow_imports(network_roots(options, "evaluate")) | self.digest_stage(
            "evaluate"
        )
        return self.digest_training(options) | scoring | self.digest_stage("search")


def _read_module(path: Path) -> tuple[str, list[str]]:
    """The digest of a module, and what the module imports.

    Raises:
        SettingsError: the file is no Python; the message has the line.
    """
    try:
        source = path.read_text()
        tree = ast.parse(source)
    except SyntaxError as error:
        raise SettingsError(f"{path}, line {error.lineno}: {error.msg}") from error
    except ValueError as error:  # no UTF-8, or a zero byte
        raise SettingsError(f"{path} is no Python ({error}): write the file anew") from error
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    return digest_code(source), imports


def weight_files(options: Mapping[str, Any]) -> list[Path]:
    """The weights files that options of a network name, if any; of a model its weights.

    {backbone} stands for each backbone, as these options do not say which networks use them.
    """
    weights = options.get("weights", "none")
    if weights in ("none", "imagenet"):
        return []
    names = [weights.replace("{backbone}", backbone) for backbone in BACKBONES]
    paths = [Path(name) for name in dict.fromkeys(names)]
    return [path / MODEL_WEIGHTS if path.is_dir() else path for path in paths]


def option_files(dataset: Dataset) -> list[Path]:
    """The files that options of a reader name."""
    values = [Path(value) for value in dataset.options.values() if isinstance(value, str)]
    return [path for path in values if path.is_file()]


def input_files(settings: Settings) -> list[Path]:
    """Every file that options of params.yaml name, but for the sources of data sets."""
    files: list[Path] = []
    for recipe in settings.recipes.values():
        files += weight_files(recipe.network)
    for network in settings.networks.values():
        files += weight_files(network)
    for name in settings.at_hand:
        files += option_files(settings.datasets[name])
    return [path for path in dict.fromkeys(files) if path.is_file() and not find_start(str(path))]


def _digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by path, of the files that exist; `train` depends on models of this pipeline."""
    return {
        str(path): digest_file(path)
        for path in files
        if path.is_file() and not find_start(str(path))
    }


def network_roots(options: Mapping[str, Any], purpose: str) -> tuple[str, ...]:
    """The modules from which imports are followed, for a network and a purpose."""
    # A network that names places but no block has the default one of NetworkOptions, "ia".
    block = (f"ianet.blocks.{options.get('block', 'ia')}",) if options.get("after") else ()
    return (*NETWORK_ROOTS[purpose], *block)


def write_sources(settings: Settings) -> None:
    """build/sources: a file for each network and purpose, recipe, data set and stage."""
    code = Code()
    for name, dataset in settings.datasets.items():
        _write(
            f"datasets/{name}",
            {
                "options": dataset.model_dump(mode="json", include=set(PREPARATION)),
                "files": _digests(option_files(dataset)),
                "code": code.follow_imports([f"ianet.datasets.{dataset.reader}"]),
            },
        )
        _write(f"terms/{name}", {"terms": dataset.terms})
    for name, recipe in settings.recipes.items():
        content = recipe.model_dump(mode="json", exclude={"minutes"})
        _write(f"recipes/{name}", {**content, "files": _digests(weight_files(recipe.network))})
    for name, options in settings.networks.items():
        for purpose in NETWORK_ROOTS:
            content = {
                "options": options,
                "files": _digests(weight_files(options)),
                "code": code.follow_imports(network_roots(options, purpose)),
            }
            _write(f"networks/{name}/{purpose}", content)
    for stage in STAGE_CODE:
        _write(f"stages/{stage}", {"code": code.digest_stage(stage)})


def _write(name: str, content: dict[str, Any]) -> None:
    write_whole(SOURCES / f"{name}.json", json.dumps(content, indent=2) + "\n")


def main() -> None:
    write_sources(load())


if __name__ == "__main__":
    command(main)
