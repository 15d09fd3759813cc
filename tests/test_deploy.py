"""The files of deploy/: valid by their schemas, equal in versions, without a secret."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import check_jsonschema
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner, Result

from ianet import __version__

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
IMAGE_LOCK = DEPLOY / "requirements.lock"
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


def test_the_forge_runs_commands_that_are_there(tmp_path: Path) -> None:
    schema = ["--builtin-schema", "vendor.github-workflows"]
    path = ROOT / ".github/workflows/checks.yml"
    assert check_schema(schema, path).exit_code == 0
    content = yaml.safe_load(path.read_text())
    commands = {
        name: [step["run"] for step in job["steps"] if "run" in step]
        for name, job in content["jobs"].items()
    }
    assert commands == {"check": ["make check"], "test": [".ci/run"]}
    assert (ROOT / ".ci/run").exists()
    assert "\ncheck: .venv/dev\n" in (ROOT / "Makefile").read_text()
    content["jobs"]["check"]["step"] = []
    misspelt = tmp_path / "checks.yml"
    misspelt.write_text(yaml.safe_dump(content))
    assert check_schema(schema, misspelt).exit_code == 1


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
    assert f"-t {image} .\n" in (DEPLOY / "Dockerfile").read_text()
    assert read("raycluster.yaml")["spec"]["rayVersion"] == locked_packages(IMAGE_LOCK)["ray"]


def test_mlflow_and_its_packages_have_the_locked_versions() -> None:
    recipe = read("compose.yaml")["services"]["mlflow"]["build"]["dockerfile_inline"]
    # PostgreSQL's driver is a package of the server alone, and of the checks.
    locked = locked_packages(ROOT / "requirements-dev.lock")
    assert f"FROM ghcr.io/mlflow/mlflow:v{locked['mlflow']}\n" in recipe
    versions = re.findall(r"([\w-]+)(?:\[\w+])?==(\S+)", recipe)
    assert versions
    assert {package: locked[package] for package, _ in versions} == dict(versions)


def test_the_image_has_the_pipelines_packages_and_no_test_tools() -> None:
    image = locked_packages(IMAGE_LOCK)
    pipeline = locked_packages(ROOT / "requirements.lock")
    assert image == image | pipeline
    assert {"boto3", "opencensus"} <= image.keys()  # of Ray's launcher on AWS, of the dashboard
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    tools = {re.split(r"[\[<>=~]", requirement)[0] for requirement in extras["dev"]}
    assert not tools & image.keys()
    assert (
        f"--require-hashes -r {IMAGE_LOCK.relative_to(ROOT)}" in (DEPLOY / "Dockerfile").read_text()
    )


def test_the_image_has_the_files_that_stages_need() -> None:
    patterns = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in patterns
    copied = {line[1:] for line in patterns if line.startswith("!")}
    assert all((ROOT / path).exists() for path in copied)
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
