"""The wheel: the library alone, typed, with no import of what only the extras bring."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ianet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = [path for path in sorted(ROOT.glob("ianet/**/*")) if path.suffix in (".py", ".typed")]

# Imports every module that its arguments name. Modules on standard input are refused.
IMPORTER = """
import importlib, sys

refused = set(sys.stdin.read().split())

class Refuser:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} comes with an extra", name=name)

sys.meta_path.insert(0, Refuser())
for module in sys.argv[1:]:
    importlib.import_module(module)
"""

BUILDER = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = [module_name(path) for path in SOURCES if path.suffix == ".py"]


def installed_closure(requirements: Iterable[str]) -> set[str]:
    """Distributions in this environment that requirements reach, by canonical name."""
    waiting = [Requirement(text) for text in requirements]
    visited: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in visited:
                continue
            try:
                further = distribution(name).requires or []
            except PackageNotFoundError:
                continue
            visited.add((name, extra))
            waiting += [
                each
                for each in map(Requirement, further)
                if each.marker is None or each.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in visited}


def modules_of_extras() -> set[str]:
    """Top-level modules of distributions that the library's own requirements do not reach."""
    library = installed_closure(PROJECT["dependencies"])
    extras = installed_closure(
        requirement
        for requirements in PROJECT["optional-dependencies"].values()
        for requirement in requirements
    )
    return {
        module
        for module, names in packages_distributions().items()
        if all(canonicalize_name(name) in extras - library for name in names)
    } | {"pipeline"}


def import_modules(modules: Iterable[str], refused: Iterable[str]) -> str:
    """What a new process of Python says on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTER, *modules],
        input=" ".join(refused),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


@pytest.mark.slow
def test_each_module_of_the_library_works_without_the_extras() -> None:
    refused = modules_of_extras()
    assert {"ray", "mlflow", "dvc", "yaml", "pytest"} <= refused
    assert not refused & {"torch", "numpy", "pandas", "ianet"}
    assert MODULES
    assert import_modules(MODULES, refused) == ""


def test_an_import_of_an_extra_is_found() -> None:
    assert "ray comes with an extra" in import_modules(["ray"], modules_of_extras())


def test_the_citation_and_the_project_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    for field, value in {"version": ianet.__version__, "license": PROJECT["license"]}.items():
        assert re.findall(rf"^{field}: (.+)$", citation, re.MULTILINE) == [value]


@pytest.mark.slow
def test_the_wheel_holds_the_library_alone(tmp_path: Path) -> None:
    # Out of a copy, as setuptools writes into the folder that it builds.
    source = tmp_path / "source"
    files = [*SOURCES, *map(ROOT.joinpath, ("pyproject.toml", "README.md", "LICENSE"))]
    for path in (*files, ROOT / "pipeline" / "__init__.py"):
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    subprocess.run(
        [sys.executable, "-c", BUILDER, tmp_path], cwd=source, check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        requires = re.findall(r"^Requires-Dist: (.+)$", archive.read(metadata).decode(), re.M)
    library = {str(path.relative_to(ROOT)) for path in SOURCES}
    assert "ianet/py.typed" in library
    assert {name for name in names if ".dist-info/" not in name} == library
    assert any(name.endswith("licenses/LICENSE") for name in names)
    needed = {Requirement(text).name for text in requires if "extra ==" not in text}
    assert needed == {Requirement(text).name for text in PROJECT["dependencies"]}
