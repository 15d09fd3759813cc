"""The wheel: the library alone, typed, with no import of what only the extras bring."""

from __future__ import annotations

import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
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

# Imports every module that its arguments name. Prints the file of the first one, and the installed
# distributions.
IMPORTER = """
import importlib, importlib.metadata, json, sys

modules = [importlib.import_module(name) for name in sys.argv[1:]]
names = [each.name for each in importlib.metadata.distributions()]
print(json.dumps([modules[0].__file__, names]))
"""

# Runs the commands of ianet on standard input, and prints code, output and errors of each.
RUNNER = """
import contextlib, io, json, sys

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


COMMANDS = {each.name for each in pkgutil.iter_modules([str(ROOT / "ianet/cli/commands")])}
MODULES = [module_name(path) for path in SOURCES if path.suffix == ".py"]


def installed_closure(requirements: Iterable[str]) -> set[str]:
    """Distributions in this environment that requirements reach, by canonical name."""
    waiting = [(Requirement(text), "") for text in requirements]
    visited: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for part in {"", *requirement.extras} - {extra for each, extra in visited if each == name}:
            visited.add((name, part))
            waiting += [(Requirement(text), part) for text in distribution(name).requires or []]
    return {name for name, _ in visited}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy, as setuptools writes into the folder that it builds.
    target = tmp_path_factory.mktemp("wheel")
    source = target / "source"
    files = [*SOURCES, *map(ROOT.joinpath, ("pyproject.toml", "README.md", "LICENSE"))]
    for path in (*files, ROOT / "pipeline" / "__init__.py"):
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    subprocess.run(
        [sys.executable, "-c", BUILDER, target], cwd=source, check=True, capture_output=True
    )
    (path,) = target.glob("*.whl")
    return path


def requirements_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return re.findall(r"^Requires-Dist: (.+)$", archive.read(metadata).decode(), re.M)


class Environment:
    """A virtual environment with the wheel and what the wheel requires without an extra.

    The packages are links to those of this process's environment.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, symlinks=True)
        self.folder, self.programs = folder, folder / "bin"
        uv = [sys.executable, "-m", "uv", "--offline", "--no-cache", "--no-config", "pip"]
        install = ["install", "--quiet", "--no-deps", "--python", self.programs / "python", wheel]
        subprocess.run([*uv, *install], check=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        self.closure = installed_closure(requirements_of(wheel))
        for name in self.closure:
            for path in distribution(name).files or []:
                top = path.parts[0]
                if top not in ("..", "__pycache__") and not (packages / top).exists():
                    (packages / top).symlink_to(str(distribution(name).locate_file(top)))

    def run(self, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """A process in a folder that is not the checkout; the first word is a program's name."""
        program, *arguments = command
        return subprocess.run(
            [self.programs / program, *arguments],
            input=text,
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"), wheel)


@pytest.mark.slow
def test_each_module_of_the_library_works_without_the_extras(environment: Environment) -> None:
    done = environment.run("python", "-c", IMPORTER, *MODULES)
    assert done.stderr == ""
    file, names = json.loads(done.stdout)
    assert Path(file).is_relative_to(environment.folder)
    assert {*map(canonicalize_name, names)} == {"ianet", *environment.closure}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["pipeline", "ray", "mlflow", "dvc", "yaml", "onnx", "pytest"])
def test_an_import_of_an_extra_fails_there(environment: Environment, module: str) -> None:
    errors = environment.run("python", "-c", IMPORTER, "ianet", module).stderr
    assert errors.endswith(f"ModuleNotFoundError: No module named '{module}'\n")


@pytest.mark.slow
def test_the_wheel_brings_the_program(environment: Environment) -> None:
    done = environment.run("ianet", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in COMMANDS)
    assert environment.run("ianet", "--version").stdout.split()[-1] == ianet.__version__


@pytest.mark.slow
def test_each_command_works_without_the_extras(environment: Environment, tmp_path: Path) -> None:
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
    assert set(commands) == COMMANDS
    texts = [[name, *map(str, arguments)] for name, arguments in commands.items()]
    done = environment.run("python", "-c", RUNNER, text=json.dumps(texts))
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
def test_the_wheel_holds_the_library_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    library = {str(path.relative_to(ROOT)) for path in SOURCES}
    assert "ianet/py.typed" in library
    assert {name for name in names if ".dist-info/" not in name} == library
    assert any(name.endswith("licenses/LICENSE") for name in names)
    packages = {Requirement(text).name for text in requirements_of(wheel) if "extra ==" not in text}
    assert packages == {Requirement(text).name for text in PROJECT["dependencies"]}
