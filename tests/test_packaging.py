"""The wheel: the library alone, typed, with no import of what only the extras bring."""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
import torch
import torchvision
from conftest import written
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny_models import tiny_model

import ianet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCES = [path for path in sorted(ROOT.glob("ianet/**/*")) if path.suffix in (".py", ".typed")]

# The start of a program without the modules that its first argument names, as if not installed.
HIDER = """
import sys

hidden = set(sys.argv[1].split())

class Hider:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in hidden:
            return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Hider, sys.meta_path)
"""

# Imports every module that its other arguments name.
IMPORTER = f"""{HIDER}
import importlib

for module in sys.argv[2:]:
    importlib.import_module(module)
"""

# Runs the commands of ianet on standard input, and prints code, output and errors of each.
RUNNER = f"""{HIDER}
import contextlib, io, json

from ianet.cli.main import main

outcomes = []
for arguments in json.load(sys.stdin):
    sys.argv = ["ianet", *arguments]
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            outcomes.append((end.code or 0, output.getvalue(), errors.getvalue()))
print(json.dumps(outcomes))
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


def run_without(
    hidden: Iterable[str], program: str, *arguments: str, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """A new process of Python, in which modules are not installed."""
    return subprocess.run(
        [sys.executable, "-c", program, " ".join(hidden), *arguments],
        input=text,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_each_module_of_the_library_works_without_the_extras() -> None:
    refused = modules_of_extras()
    assert {"ray", "mlflow", "dvc", "yaml", "pytest"} <= refused
    assert not refused & {"torch", "numpy", "pandas", "ianet"}
    assert MODULES
    assert run_without(refused, IMPORTER, *MODULES).stderr == ""


def test_an_import_of_an_extra_is_found() -> None:
    errors = run_without(modules_of_extras(), IMPORTER, "ray").stderr
    assert errors.endswith("ModuleNotFoundError: No module named 'ray'\n")


@pytest.mark.slow
def test_each_command_works_without_the_extras(tmp_path: Path) -> None:
    model, photos, features = tmp_path / "model", tmp_path / "photos", tmp_path / "features"
    tiny_model(model)
    written(photos, [f"{person}/{number}.jpg" for person in "abcdef" for number in "123"])
    first = photos / "a/1.jpg"
    checkpoint = tmp_path / "checkpoint.pth"
    torch.save(torchvision.models.mobilenet_v2().state_dict(), checkpoint)
    reader = ("--reader", "persons", "--cameras", "ignore")
    size = ("--backbone", "mobilenet_v2", "--height", "64", "--width", "32")
    commands: dict[str, list[object]] = {
        "embed": [model, photos, "-o", f"{features}.parquet", "--labels", "folders"],
        "search": [model, first, f"{features}.parquet", "-k", "2", "-o", tmp_path / "ranks.csv"],
        "validate": [photos, *reader],
        "evaluate": [model, photos, *reader],
        "calibrate": [model, photos, *reader, "--far", "0.5", "-o", tmp_path / "calibrated"],
        "compare": [tmp_path / "calibrated", first, first],
        "attention": [model, first, "--point", "0.5,0.5", "-o", tmp_path / "maps.png"],
        "convert": [checkpoint, *size, "-o", tmp_path / "converted"],
        "export": [model, "-o", tmp_path / "model.onnx"],
    }
    places = pkgutil.iter_modules([str(ROOT / "ianet/cli/commands")])
    assert set(commands) == {place.name for place in places}
    texts = [[name, *map(str, arguments)] for name, arguments in commands.items()]
    done = run_without(modules_of_extras(), RUNNER, text=json.dumps(texts))
    assert done.stderr == ""
    outcomes = dict(zip(commands, json.loads(done.stdout), strict=True))
    assert outcomes.pop("export") == [
        2,
        "",
        "error: ONNX needs onnx, onnxscript, onnxruntime: pip install onnx onnxscript "
        "onnxruntime\n",
    ]
    assert {name: code for name, (code, _, _) in outcomes.items()} == dict.fromkeys(outcomes, 0)
    assert outcomes["embed"][1] == f"{features}.parquet: 1280 numbers for each of 18 pictures\n"
    ranks = [line.split(",") for line in (tmp_path / "ranks.csv").read_text().splitlines()]
    assert [row[:2] for row in ranks] == [["query", "rank"], [str(first), "1"], [str(first), "2"]]
    assert outcomes["validate"][1].endswith("nothing is wrong\n")
    assert outcomes["compare"][1].startswith("same person: the distance 0.0000 is below ")
    assert (tmp_path / "maps.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "converted/config.json").exists()


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
    packages = {Requirement(text).name for text in requires if "extra ==" not in text}
    assert packages == {Requirement(text).name for text in PROJECT["dependencies"]}
