"""The files of deploy/: valid for Ray, equal in versions, closed to outside, without a secret."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
KUBERNETES = "1.37"
MADE = {"build", "data", "results", "runs"}  # what stages make
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


def pinned(package: str) -> str:
    """Its version in requirements.lock."""
    found = re.search(rf"^{package}==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def pods() -> dict[str, dict[str, Any]]:
    """The pods of the cluster on Kubernetes, by their group."""
    spec = read("raycluster.yaml")["spec"]
    groups = {"head": spec["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    return {name: group["template"]["spec"] for name, group in groups.items()}


def test_ray_accepts_its_cluster() -> None:
    config = prepare_config(read("cluster.yaml"))
    validate_config(config)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    # Ray opens ssh; what is listed there would be open, too.
    assert "security_group" not in config["provider"]
    # Ray's own defaults install things.
    assert not any(config[f"{kind}setup_commands"] for kind in ("", "head_", "worker_"))
    assert pinned("boto3")  # with which the head starts workers
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]


def test_a_mistake_in_the_cluster_is_found() -> None:
    config = read("cluster.yaml")
    config["available_node_types"]["gpu"]["min_worker"] = 1
    with pytest.raises(Exception, match="min_worker"):
        validate_config(prepare_config(config))


def test_pods_keep_kubernetes_schema() -> None:
    """KubeRay's own, of what is around them, is in no package."""
    made = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        for name, spec in pods().items()
    ]
    for pod in made:
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    made[0]["spec"]["containers"][0]["securityContext"]["runAsNonRot"] = True
    with pytest.raises(kubernetes_validate.ValidationError, match="runAsNonRot"):
        kubernetes_validate.validate(made[0], KUBERNETES, strict=True)


def test_compose_keeps_its_schema(tmp_path: Path) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*check, DEPLOY / "compose.yaml"], check=True)
    content = read("compose.yaml")
    content["services"]["mlflow"]["depend_on"] = []
    wrong = tmp_path / "compose.yaml"
    wrong.write_text(yaml.safe_dump(content))
    found = subprocess.run([*check, wrong], capture_output=True, text=True)
    assert found.returncode == 1
    assert "depend_on" in found.stdout


def test_one_image_and_one_ray() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {container["image"] for pod in pods().values() for container in pod["containers"]}
    images.add(read("cluster.yaml")["docker"]["image"])
    image = images.pop()
    assert not images
    assert image.endswith(f"/ianet:{version}")
    assert f"-t {image} .\n" in (DEPLOY / "Dockerfile").read_text()
    assert read("raycluster.yaml")["spec"]["rayVersion"] == pinned("ray")


def test_pods_may_do_little() -> None:
    spec = read("raycluster.yaml")["spec"]
    contexts = [spec["autoscalerOptions"]["securityContext"]]
    for pod in pods().values():
        for container in pod["containers"]:
            contexts.append(container["securityContext"])
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert "env" not in container
            assert all(list(source) == ["secretRef"] for source in container["envFrom"])
    for context in contexts:
        assert context["runAsNonRoot"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_trainings_go_to_gpus() -> None:
    spec = read("raycluster.yaml")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"]
    for name, pod in pods().items():
        limits = pod["containers"][0]["resources"]["limits"]
        assert limits.get("nvidia.com/gpu", 0) == (0 if name == "head" else 1)
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] < group["maxReplicas"]


def test_the_cluster_on_kubernetes_is_closed() -> None:
    spec = read("raycluster.yaml")["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"


def test_the_job_runs_on_the_cluster() -> None:
    job = read("rayjob.yaml")["spec"]
    cluster = read("raycluster.yaml")["metadata"]["name"]
    assert job["clusterSelector"] == {"ray.io/cluster": cluster}
    python, _, module = job["entrypoint"].split()
    assert python == "python"
    assert importlib.util.find_spec(module) is not None


def test_services_are_closed_and_wait_for_each_other() -> None:
    services = read("compose.yaml")["services"]
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert service["healthcheck"]["test"][0] == "CMD"
        image = service.get("image", "built:here")
        assert image.partition(":")[2] not in ("", "latest")
    before = services["mlflow"]["depends_on"]
    assert before == {
        name: {"condition": "service_healthy"} for name in services if name != "mlflow"
    }
    assert "--app-name basic-auth" in services["mlflow"]["command"]


def test_mlflow_is_that_of_the_project() -> None:
    recipe = read("compose.yaml")["services"]["mlflow"]["build"]["dockerfile_inline"]
    assert f"FROM ghcr.io/mlflow/mlflow:v{pinned('mlflow')}\n" in recipe
    for package, version in re.findall(r"([\w-]+)(?:\[\w+])?==(\S+)", recipe):
        assert version == pinned(package)


def test_passwords_that_are_asked_for_are_made() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    made = re.search(r"for name in (.+); do", text)
    assert made is not None
    assert set(made[1].split()) == set(re.findall(r"\$\{(\w+):\?", text))


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


def test_the_image_is_not_roots_and_has_what_stages_need() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"^USER (.+)$", dockerfile, re.MULTILINE) == ["1000"]
    assert "--require-hashes -r requirements.lock" in dockerfile
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / path).exists() for path in copied)
    listed = re.findall(r"^ +- ([\w.]+)", (ROOT / "dvc.yaml").read_text(), re.MULTILINE)
    needed = {path for path in listed if (ROOT / path).exists()} - MADE
    assert needed
    assert needed <= copied
