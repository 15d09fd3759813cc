"""Who may import whom, read from the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOREIGN = ("ray", "mlflow", "dvc", "torch")
"""Projects whose private modules and names change without notice."""
MODULES = sorted(
    str(path.relative_to(ROOT))
    for name in ("ianet", "pipeline")
    for path in (ROOT / name).rglob("*.py")
)
CHECKS = sorted(
    str(path.relative_to(ROOT))
    for name in ("tests", "benchmarks")
    for path in (ROOT / name).glob("*.py")
    if path != Path(__file__)  # whose examples name private parts
)
DYNAMIC = re.compile(r"^(ray|mlflow|dvc|torch)(\.\w+)*\._\w+(\.\w+)*$")


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def imports(tree: ast.AST) -> set[str]:
    """Modules and imported names, with their full paths."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return names


def imports_of(path: str | Path) -> set[str]:
    return imports(ast.parse(Path(path).read_text()))


def is_private(path: str) -> bool:
    """Whether a path of a foreign project has a private component; dunders are public."""
    first, *rest = path.split(".")
    return first in FOREIGN and any(re.match(r"_(?!_\w+__$)", name) for name in rest)


def attribute_paths(tree: ast.AST) -> Iterator[str]:
    """`ray.a._b` for each attribute of a name that an import of a foreign project binds."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                bound[name.asname or name.name.split(".")[0]] = (
                    name.name if name.asname else name.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            bound |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    for node in ast.walk(tree):
        names: list[str] = []
        base: ast.AST = node
        while isinstance(base, ast.Attribute):
            names.insert(0, base.attr)
            base = base.value
        if names and isinstance(base, ast.Name) and base.id in bound:
            yield ".".join([bound[base.id], *names])


def private_uses(source: str) -> set[str]:
    """Private modules and names of foreign projects that a source imports or reaches into."""
    tree = ast.parse(source)
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    uses = {path for path in (*imports(tree), *attribute_paths(tree)) if is_private(path)}
    return uses | {text for text in texts if DYNAMIC.match(text)}


@pytest.mark.parametrize(
    ("source", "use"),
    [
        ("import ray._private.services", "ray._private.services"),
        ("from ray.train.v2._internal.callbacks import X", "ray.train.v2._internal.callbacks"),
        ("from mlflow.store import _unwrap", "mlflow.store._unwrap"),
        ("import torch\ntorch._dynamo.reset()", "torch._dynamo.reset"),
        ("import torch.nn\ntorch.nn._x", "torch.nn._x"),
        ("import ray as r\ndef f():\n    return r.a._b", "ray.a._b"),
        ("from ray import tune\ntune._x()", "ray.tune._x"),
        ("import importlib\nimportlib.import_module('dvc._private')", "dvc._private"),
    ],
)
def test_the_rule_sees_each_way_to_a_private_name(source: str, use: str) -> None:
    assert use in private_uses(source)


def test_the_rule_leaves_public_and_own_names_alone() -> None:
    source = (
        "import ray\nfrom torch import nn\nfrom pipeline.served import _load\n"
        "print(ray.__version__)\nclass A(nn.Module):\n    def f(self):\n"
        "        return self._x, nn.Module.__init__\n"
    )
    assert private_uses(source) == set()


@pytest.mark.parametrize("path", [*MODULES, *CHECKS])
def test_no_module_uses_a_private_part_of_another_project(path: str) -> None:
    assert private_uses(Path(path).read_text()) == set()


@pytest.mark.parametrize("path", [path for path in MODULES if path.startswith("ianet")])
def test_the_library_knows_nothing_of_the_pipeline(path: str) -> None:
    names = imports_of(path)
    packages = {name.split(".")[0] for name in names}
    assert not packages & {"pipeline", "ray", "mlflow", "dvc", "yaml", "pydantic"}
    if not path.startswith(("ianet/cli/", "ianet/__main__")):
        assert not packages & {"rich", "typer"}
        assert not [name for name in names if name.startswith("ianet.cli")]


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        ("relations.py", ["ianet.blocks", "ianet.network", "ianet.backbones"]),
        ("blocks/*.py", ["ianet.network", "ianet.backbones", "ianet.training"]),
        (
            "training/*.py",
            ["ianet.network", "ianet.backbones", "ianet.blocks", "ianet.datasets"],
        ),
        ("retrieval.py", ["ianet.network", "ianet.backbones", "ianet.blocks", "ianet.datasets"]),
        ("backbones.py", ["ianet.network", "ianet.blocks"]),
        ("datasets/*.py", ["ianet.network", "ianet.training", "torch"]),
        ("options.py", ["torch", "numpy"]),
        ("packing.py", ["torch"]),
    ],
)
def test_imports_inside_the_library_run_one_way(modules: str, forbidden: list[str]) -> None:
    """Network -> blocks -> relations, network -> backbones."""
    paths = list(Path("ianet").glob(modules))
    assert paths
    for path in paths:
        names = imports_of(path)
        assert not [
            name for name in names for bad in forbidden if name == bad or name.startswith(f"{bad}.")
        ], path


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        ("mlflow", ["pipeline/tracking"]),
        ("ray", ["pipeline/cluster", "pipeline/training", "pipeline/search"]),
        ("dvc", []),  # commands only
        ("yaml", ["pipeline/config", "pipeline/plan", "pipeline/search"]),
        ("pydantic", ["pipeline/config"]),
    ],
)
def test_each_framework_has_its_home(package: str, homes: list[str]) -> None:
    users = [path for path in MODULES if package in {n.split(".")[0] for n in imports_of(path)}]
    assert not [path for path in users if not path.startswith(tuple(homes))]


def test_the_served_model_imports_what_it_is_logged_with() -> None:
    packages = {name.split(".")[0] for name in imports_of("pipeline/served.py")}
    assert packages - set(sys.stdlib_module_names) == {"ianet", "numpy", "pandas"}


def test_settings_and_plans_take_no_second_to_import() -> None:
    code = (
        "import sys; import pipeline.plan.dvc_yaml, pipeline.plan.sources, pipeline.shell;"
        "print({'torch', 'ray', 'mlflow', 'dvc'} & set(sys.modules))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout == "set()\n"


@pytest.mark.parametrize("path", [path for path in MODULES if path.endswith("__init__.py")])
def test_init_files_hold_a_docstring_at_most(path: str) -> None:
    """`ianet/__init__.py` also holds the version and what finds `ianet.load`, and
    `pipeline/__init__.py` what Ctrl-C does while a command is imported.
    """
    tree = ast.parse(Path(path).read_text())
    statements = tree.body if ast.get_docstring(tree) is None else tree.body[1:]
    names = [
        node.name if isinstance(node, ast.FunctionDef) else ast.unparse(node).split(" = ")[0]
        for node in statements
        if not isinstance(node, ast.Import | ast.ImportFrom | ast.If)
    ]
    assert names == (["__version__", "__getattr__"] if path == "ianet/__init__.py" else [])


def test_the_library_and_the_help_of_the_command_take_no_second_to_import() -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'PIL', 'rich'} & set(sys.modules)"
    for module in ("ianet", "ianet.cli.app"):
        code = f"import sys, {module}; print({heavy})"
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert process.stdout == "set()\n"
