"""Who may import whom, read from the sources."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {"ianet", "pipeline", "benchmarks", "docs", *(path.stem for path in ROOT.glob("tests/*.py"))}
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
SELF = ("self", "cls", "super()")
CLASS = "from torch import nn\nclass A(nn.Module):\n"  # of examples
MODULES = sorted(
    str(path.relative_to(ROOT))
    for name in ("ianet", "pipeline")
    for path in (ROOT / name).rglob("*.py")
)
CHECKS = sorted(
    str(path.relative_to(ROOT))
    for name in ("tests", "benchmarks", "docs")
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


def is_foreign(path: str) -> bool:
    """Whether a module or name belongs neither to this project nor to Python."""
    package = path.split(".")[0]
    return package not in OWN and package not in sys.stdlib_module_names


def is_private_name(name: str) -> bool:
    """Dunders are public."""
    return re.match(r"_(?!_\w+__$)", name) is not None


def is_private(path: str) -> bool:
    """Whether a path of a foreign project has a private component."""
    return is_foreign(path) and any(map(is_private_name, path.split(".")[1:]))


def import_paths(tree: ast.AST) -> dict[str, str]:
    """The full path of what each name stands for that an import binds."""
    paths = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                paths[name.asname or name.name.split(".")[0]] = (
                    name.name if name.asname else name.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            paths |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
    return paths


def full_path(node: ast.AST, paths: dict[str, str]) -> str | None:
    """`ray.a.b` for the expression `a.b`, where an import binds `a` to `ray.a`."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return ".".join([paths[node.id], *names]) if getattr(node, "id", None) in paths else None


def paths_in(tree: ast.AST) -> Iterator[str]:
    """Paths of attributes, and of those that a call names by an object and a text."""
    paths = import_paths(tree)
    for node in ast.walk(tree):
        path = None
        if isinstance(node, ast.Attribute):
            path = full_path(node, paths)
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            path, name = full_path(node.args[0], paths), node.args[1]
            if path and isinstance(name, ast.Constant):
                path = f"{path}.{name.value}"
        if path:
            yield path


def private_arguments(tree: ast.AST) -> Iterator[str]:
    """Private arguments of calls of any function: no import says whose method `x.f` is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            names = [keyword.arg for keyword in node.keywords if keyword.arg]
            names += [
                key.value
                for keyword in node.keywords
                if keyword.arg is None and isinstance(keyword.value, ast.Dict)
                for key in keyword.value.keys
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            ]
            yield from (f"{ast.unparse(node.func)}({n}=)" for n in names if is_private_name(n))


def members(class_: ast.ClassDef) -> set[str]:
    """Private names that a class defines, or takes from itself."""
    names = {node.name for node in class_.body if isinstance(node, FUNCTION)}
    for node in ast.walk(class_):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in SELF:
            names.add(node.attr)
    for statement in class_.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            nodes = ast.walk(statement)
            names |= {
                node.id
                for node in nodes
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }
    return {name for name in names if is_private_name(name)}


def has_member(path: str, name: str) -> bool:
    """Whether a foreign class, or a foreign base of an own one, has a name or may have it."""
    if path.split(".")[0] in sys.stdlib_module_names:
        return False
    try:
        class_ = pkgutil.resolve_name(path)
    except (ImportError, AttributeError):
        return is_foreign(path)
    if not isinstance(class_, type):
        return is_foreign(path)
    for base in filter(lambda base: is_foreign(base.__module__), class_.__mro__):
        codes = [member.__code__ for member in vars(base).values() if hasattr(member, "__code__")]
        if hasattr(base, name) or any(name in code.co_names for code in codes):
            return True
    return False


def private_members(tree: ast.AST) -> Iterator[str]:
    """Private parts of foreign classes that a class derived from them overrides or uses."""
    paths = import_paths(tree)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names = {class_.name: class_ for class_ in classes}

    def base_paths(class_: ast.ClassDef) -> Iterator[str]:
        for base in class_.bases:
            while isinstance(base, ast.Subscript | ast.Call):
                base = base.value if isinstance(base, ast.Subscript) else base.func
            local = names.get(base.id) if isinstance(base, ast.Name) else None
            if local is not None and local is not class_:
                yield from base_paths(local)
            elif path := full_path(base, paths):
                yield path

    for class_ in classes:
        for path in base_paths(class_):
            yield from (f"{path}.{name}" for name in members(class_) if has_member(path, name))


def private_uses(source: str) -> set[str]:
    """Private modules, names, arguments and methods of foreign projects that a source uses."""
    tree = ast.parse(source)
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    uses = {path for path in (*imports(tree), *paths_in(tree)) if is_private(path)}
    uses |= {text for text in texts if DYNAMIC.match(text)}
    return uses | {*private_arguments(tree), *private_members(tree)}


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
        ("import pandas\npandas._libs.lib", "pandas._libs.lib"),
        ("import torch\nmonkeypatch.setattr(torch.nn, '_x', 1)", "torch.nn._x"),
        ("import torch\ntorch.save([], 'a.pth', _x=1)", "torch.save(_x=)"),
        ("from torch import save as keep\nkeep([], **{'_x': 1})", "keep(_x=)"),
        ("import functools, torch\nfunctools.partial(torch.save, _x=1)", "functools.partial(_x=)"),
        ("def f(model):\n    model.save(_x=1)", "model.save(_x=)"),
        (f"{CLASS}    def _apply(self):\n        pass", "torch.nn.Module._apply"),
        (f"{CLASS}    async def _apply(self):\n        pass", "torch.nn.Module._apply"),
        (f"{CLASS}    _version = 2", "torch.nn.Module._version"),
        (f"{CLASS}    def f(self):\n        self._buffers.clear()", "torch.nn.Module._buffers"),
        (f"{CLASS}    def f(self):\n        super()._apply()", "torch.nn.Module._apply"),
        (f"{CLASS}    pass\nclass B(A[int]):\n    _apply = 1", "torch.nn.Module._apply"),
        (
            "from ianet.blocks import ia\nclass A(ia.SpatialIA):\n    _apply = None",
            "ianet.blocks.ia.SpatialIA._apply",
        ),
        ("from ray.none import X\nclass A(X):\n    def _x(self):\n        pass", "ray.none.X._x"),
        ("from torch import zeros\nclass A(zeros(1)):\n    _x = 1", "torch.zeros._x"),
    ],
)
def test_the_rule_sees_each_way_to_a_private_name(source: str, use: str) -> None:
    assert use in private_uses(source)


def test_the_rule_leaves_public_and_own_names_alone() -> None:
    source = (
        "import ray, threading\nfrom torch import nn\nfrom pipeline.served import _load\n"
        "print(ray.__version__, threading._shutdown, **{'x': 1})\nclass A(nn.Module):\n"
        "    def f(self):\n        return self._x, nn.Module.__init__\n"
        "    def _x(self):\n        return super().__init__\n"
        "class B(threading.Thread):\n    def _bootstrap(self):\n        pass\n"
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
