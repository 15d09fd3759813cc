"""The files of deploy/: valid by their schemas, equal in versions, without a secret."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import check_jsonschema
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner, Result
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ianet import __version__

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
WORKFLOW = ROOT / ".github/workflows/checks.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KUBERNETES = "1.37"
OUTPUTS = {"build", "data", "models", "results", "runs"}  # of stages
# A secret's name with a value that is neither taken from elsewhere nor a path.
SECRET = re.compile(
    r"""(?:password|secret|token|_key)["']? (?:\s*,?\s*value)? [ \t]*[:=][ \t]* (?!false)[^$~{?\s]
    | ://[^/\s:@]+:[^/\s@]+@  # in a URL
    """,
    re.IGNORECASE | re.VERBOSE,
)


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return content


def locked_packages(lock: Path) -> dict[str, str]:
    """Versions by package."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def instructions(recipe: str) -> list[tuple[str, list[str]]]:
    """The instructions of a Dockerfile, with their words."""
    text = re.sub(r"^ *#.*\n", "", recipe, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(keyword, shlex.split(rest)) for keyword, rest in lines]


def image_instructions() -> list[tuple[str, list[str]]]:
    return instructions((DEPLOY / "Dockerfile").read_text())


def image_lock() -> Path:
    """The one file that the image installs from, which must be among what is copied before."""
    copies: dict[str, str] = {}
    locks = []
    for keyword, words in image_instructions():
        arguments = [word for word in words if not word.startswith("-")]
        if keyword == "COPY":
            *sources, target = arguments
            copies |= {str(Path(target, Path(source).name)): source for source in sources}
        elif keyword == "RUN" and "pip" in arguments:
            assert arguments[:2] == ["pip", "install"]
            assert {"--require-hashes", "-r"} <= {*words}
            [name] = arguments[2:]
            locks.append(ROOT / copies[name])
    [lock] = locks
    return lock


def files_in_image() -> set[str]:
    """What Docker copies: the exceptions to the first pattern, which leaves all out."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    first, *patterns = [line for line in lines if line and not line.startswith("#")]
    assert first == "*"
    return {pattern[1:] for pattern in patterns if pattern.startswith("!")}


def pod_specs() -> dict[str, dict[str, Any]]:
    """The pods of the cluster on Kubernetes, by their group."""
    spec = read("raycluster.yaml")["spec"]
    groups = {"head": spec["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def check_schema(schema: list[str], path: Path) -> Result:
    return CliRunner().invoke(check_jsonschema.main, [*schema, str(path)])


def ray_schema() -> list[str]:
    """Ray's package holds the schema of its cluster files."""
    package = importlib.util.find_spec("ray")
    assert package is not None
    assert package.origin is not None
    return ["--schemafile", str(Path(package.origin).parent / "autoscaler" / "ray-schema.json")]


COMPOSE_SCHEMA = ["--builtin-schema", "vendor.compose-spec"]


def test_the_forges_workflow_keeps_its_schema(tmp_path: Path) -> None:
    schema = ["--builtin-schema", "vendor.github-workflows"]
    assert check_schema(schema, WORKFLOW).exit_code == 0
    content = yaml.safe_load(WORKFLOW.read_text())
    content["jobs"]["check"]["step"] = []
    misspelt = tmp_path / "checks.yml"
    misspelt.write_text(yaml.safe_dump(content))
    assert check_schema(schema, misspelt).exit_code == 1


def make_calls(command: str, folder: Path) -> list[list[str]]:
    """The arguments of each `make` that a command of the project calls; nothing is made."""
    calls = folder / "calls"
    calls.touch()
    for name, text in {"make": f'echo "$@" >> "{calls}"', "apt-get": "exit 1"}.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    path = f"{folder}:{os.environ['PATH']}"
    subprocess.run(["bash", "-ec", command], cwd=ROOT, env=os.environ | {"PATH": path}, check=True)
    return [line.split() for line in calls.read_text().splitlines()]


def recipes(targets: list[str]) -> list[list[str]]:
    """The words of each line that make would run in a checkout without `.venv`."""
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    process = subprocess.run(
        ["make", "--dry-run", "--always-make", *targets],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return [shlex.split(line) for line in process.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("job", ["check", "test"])
def test_the_forge_runs_all_kinds_of_checks(job: str, tmp_path: Path) -> None:
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"][job]["steps"]
    calls = [call for step in steps if "run" in step for call in make_calls(step["run"], tmp_path)]
    lines = [line for call in calls for line in recipes(call)]
    assert ["ruff", "format", "--check", "."] in lines
    assert ["ruff", "check", "."] in lines
    assert ["mypy"] in lines
    [tests] = [line for line in lines if "pytest" in line]
    assert (job == "check") == ("-m" in tests)  # some of the tests
    [setup] = [line for line in lines if "bootstrap.sh" in line]
    assert setup[-2:] == ["bootstrap.sh", "dev"]


def test_the_cluster_on_aws_keeps_rays_schema(tmp_path: Path) -> None:
    assert check_schema(ray_schema(), DEPLOY / "cluster.yaml").exit_code == 0
    content = read("cluster.yaml")
    content["available_node_types"]["gpu"]["min_worker"] = 1
    misspelt = tmp_path / "cluster.yaml"
    misspelt.write_text(yaml.safe_dump(content))
    result = check_schema(ray_schema(), misspelt)
    assert result.exit_code == 1
    assert "min_worker" in result.output


def test_compose_keeps_its_schema(tmp_path: Path) -> None:
    assert check_schema(COMPOSE_SCHEMA, DEPLOY / "compose.yaml").exit_code == 0
    content = read("compose.yaml")
    content["services"]["mlflow"]["depend_on"] = []
    misspelt = tmp_path / "compose.yaml"
    misspelt.write_text(yaml.safe_dump(content))
    result = check_schema(COMPOSE_SCHEMA, misspelt)
    assert result.exit_code == 1
    assert "depend_on" in result.output


def test_pods_keep_kubernetes_schema() -> None:
    """No package holds the schema of KubeRay's own fields around the pods."""
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        for name, spec in pod_specs().items()
    ]
    for pod in pods:
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    pods[0]["spec"]["containers"][0]["securityContext"]["runAsNonRot"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="runAsNonRot"):
        kubernetes_validate.validate(pods[0], KUBERNETES, strict=True)


def test_one_image_and_one_ray() -> None:
    images = {container["image"] for pod in pod_specs().values() for container in pod["containers"]}
    images.add(read("cluster.yaml")["docker"]["image"])
    image = images.pop()
    assert not images
    assert image.endswith(f"/ianet:{__version__}")
    [command] = re.findall(r"^# +(docker build .+)", (DEPLOY / "Dockerfile").read_text(), re.M)
    words = shlex.split(command)
    assert words[words.index("-t") + 1] == image
    assert (ROOT / words[words.index("-f") + 1]).samefile(DEPLOY / "Dockerfile")
    assert read("raycluster.yaml")["spec"]["rayVersion"] == locked_packages(image_lock())["ray"]


def test_mlflow_and_its_packages_have_the_locked_versions() -> None:
    recipe = instructions(read("compose.yaml")["services"]["mlflow"]["build"]["dockerfile_inline"])
    # PostgreSQL's driver is a package of the server alone, and of the checks.
    locked = locked_packages(ROOT / "requirements-dev.lock")
    [[image]] = [words for keyword, words in recipe if keyword == "FROM"]
    assert image.split(":v")[1] == locked["mlflow"]
    [install] = [words for keyword, words in recipe if keyword == "RUN"]
    requirements = [Requirement(word) for word in install[2:] if not word.startswith("-")]
    assert {each.name for each in requirements} >= {"mlflow", "psycopg2-binary", "boto3"}
    assert {each.name: str(each.specifier) for each in requirements} == {
        each.name: f"=={locked[each.name]}" for each in requirements
    }


def test_the_image_has_the_pipelines_packages_and_no_test_tools() -> None:
    image = locked_packages(image_lock())
    pipeline = locked_packages(ROOT / "requirements.lock")
    assert image == image | pipeline
    assert {"boto3", "opencensus"} <= image.keys()  # of Ray's launcher on AWS, of the dashboard
    tools = {Requirement(text).name for text in PROJECT["optional-dependencies"]["dev"]}
    assert not tools & image.keys()
    lines = pairwise(image_lock().read_text().splitlines())
    assert all("--hash=" in below for line, below in lines if re.match(r"[\w.-]+==", line))


def test_the_image_has_a_python_that_the_project_takes() -> None:
    [[image]] = [words for keyword, words in image_instructions() if keyword == "FROM"]
    name, version = image.removesuffix("-slim").split(":")
    assert name == "python"
    assert version in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("recipe", ["image", "mlflow"])
def test_no_container_of_ours_runs_as_root(recipe: str) -> None:
    inline = read("compose.yaml")["services"]["mlflow"]["build"]["dockerfile_inline"]
    words = instructions(inline) if recipe == "mlflow" else image_instructions()
    users = [user for keyword, [user, *_] in words if keyword == "USER"]
    assert users
    assert users[-1].split(":")[0] not in ("root", "0")


def test_the_image_has_the_files_that_stages_need() -> None:
    copied = files_in_image()
    assert all((ROOT / path).exists() for path in copied)
    sources = {
        source
        for keyword, words in image_instructions()
        if keyword == "COPY"
        for source in [word for word in words if not word.startswith("-")][:-1]
    }
    assert "." in sources
    assert sources - {"."} <= copied
    listed = re.findall(r"^ +- ([\w.]+)", (ROOT / "dvc.yaml").read_text(), re.MULTILINE)
    files = {path for path in listed if (ROOT / path).exists()} - OUTPUTS
    assert files
    assert files <= copied


def test_the_job_runs_on_the_cluster() -> None:
    job = read("rayjob.yaml")["spec"]
    cluster = read("raycluster.yaml")["metadata"]["name"]
    assert job["clusterSelector"] == {"ray.io/cluster": cluster}
    module = job["entrypoint"].split()[-1]
    assert importlib.util.find_spec(module) is not None


def test_each_password_has_a_line_that_makes_it() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    loop = re.search(r"for name in (.+); do", text)
    assert loop is not None
    assert set(loop[1].split()) == set(re.findall(r"\$\{(\w+):\?", text))


def test_no_secret() -> None:
    for path in DEPLOY.iterdir():
        if not path.name.endswith(".env"):  # which git ignores
            assert SECRET.search(path.read_text()) is None, path


@pytest.mark.parametrize(
    "text",
    [
        "POSTGRES_PASSWORD: mlflow",
        'AWS_SECRET_ACCESS_KEY: "abc"',
        "{name: RAY_AUTH_TOKEN, value: abc}",
        "- name: MLFLOW_TRACKING_PASSWORD\n  value: abc",
        "run_options: [-e RAY_AUTH_TOKEN=abc]",
        "admin_password = abc",
        "postgresql://mlflow:abc@postgres/mlflow",
    ],
)
def test_a_secret_is_found(text: str) -> None:
    assert SECRET.search(text) is not None


def variables_of_image() -> dict[str, str]:
    lines = re.findall(r"^ENV (.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return dict(word.split("=", 1) for line in lines for word in line.split())


def test_telemetry_is_off_wherever_ray_or_mlflow_start() -> None:
    off = {"RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}
    variables = variables_of_image()  # of all containers: test_one_image_and_one_ray
    assert variables == variables | off
    containers = [each for pod in pod_specs().values() for each in pod["containers"]]
    assert not off.keys() & {entry["name"] for each in containers for entry in each.get("env", [])}
    assert not [name for name in off if name in str(read("cluster.yaml"))]
    mlflow = read("compose.yaml")["services"]["mlflow"]["environment"]
    assert mlflow["MLFLOW_DISABLE_TELEMETRY"] == "true"
    script = (DEPLOY / "slurm.sbatch").read_text()
    assert re.search(r"^export .*\bRAY_USAGE_STATS_ENABLED=0\b", script, re.MULTILINE)


@pytest.mark.parametrize(
    ("path", "command", "variable"),
    [
        # `ray up` hands its own choice to the head, before the image's.
        ("docs/deploy.md", "ray up", "RAY_USAGE_STATS_ENABLED=0"),
        ("deploy/cluster.yaml", "ray up", "RAY_USAGE_STATS_ENABLED=0"),
        ("docs/deploy.md", "mlflow server", "MLFLOW_DISABLE_TELEMETRY=true"),
        ("docs/use.md", "mlflow artifacts", "MLFLOW_DISABLE_TELEMETRY=true"),
        ("docs/use.md", "mlflow models serve", "MLFLOW_DISABLE_TELEMETRY=true"),
    ],
)
def test_commands_by_hand_turn_telemetry_off(path: str, command: str, variable: str) -> None:
    text = (ROOT / path).read_text()
    blocks = re.findall(r"(?:^#? {4,}\S.*\n)+", text, re.MULTILINE)
    starts = [block for block in blocks if command in block]
    assert starts
    for block in starts:
        assert variable in block.partition(command)[0]
