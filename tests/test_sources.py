"""What build/sources holds: digests of code and files, and what changes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_imports import imports_of

from pipeline.config.settings import Settings, SettingsError, load
from pipeline.plan import sources
from pipeline.plan.dvc_yaml import build_pipeline
from pipeline.plan.plan import Plan, load_plan
from pipeline.plan.sources import SOURCES, Code, digest_code, input_files, write_sources

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the code and params.yaml; code is copied where a test edits it."""
    for name in ("ianet", "pipeline"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change_settings(**sections: Any) -> Settings:
    """params.yaml with other sections, and with three of its networks."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["datasets"]["synthetic"]["without"] = []
    params["datasets"]["pretraining"]["networks"] = "all"
    networks = {name: params["networks"][name] for name in ("base", "stage3", "cbam")}
    networks |= sections.pop("networks", {})
    return Settings.model_validate({**params, **sections, "networks": networks})


def changes(settings: Settings) -> set[str]:
    """The files of build/sources that differ from what they were before."""
    before = {path: path.read_bytes() for path in SOURCES.rglob("*.json")}
    write_sources(settings)
    return {
        str(path.relative_to(SOURCES).with_suffix(""))
        for path in SOURCES.rglob("*.json")
        if before.get(path) != path.read_bytes()
    }


def test_closure_of_what_is_really_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    base = Code().follow_imports(sources.NETWORK_ROOTS["train"])
    training = (
        "augmentation", "batches", "compilation", "divergence", "fit", "recipe", "step",
    )  # fmt: skip
    assert set(base) == {
        "ianet.network",
        "ianet.description",
        "ianet.options",
        "ianet.backbones",
        "ianet.images",
        "ianet.losses",
        "ianet.numerics",
        "ianet.packed_file",
        "ianet.reading",
        "ianet.weights",
        *(f"ianet.training.{name}" for name in training),
    }
    with_block = Code().follow_imports((*sources.NETWORK_ROOTS["train"], "ianet.blocks.ia"))
    assert set(with_block) - set(base) == {
        "ianet.blocks.ia",
        "ianet.relations",
        "ianet.residual",
    }
    assert "ianet.retrieval" in Code().follow_imports(sources.NETWORK_ROOTS["evaluate"])


def test_every_module_of_a_stage_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for stage, (roots, modules) in sources.STAGE_CODE.items():
        for module in (*roots, *modules):
            assert sources.module_path(module) is not None, (stage, module)
    for roots in sources.NETWORK_ROOTS.values():
        assert all(map(sources.module_path, roots))


@pytest.mark.parametrize("stage", sources.STAGE_CODE)
def test_what_the_code_of_a_stage_imports_of_the_library_counts(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code = Code()
    roots, modules = sources.STAGE_CODE[stage]
    counted = set(code.follow_imports(roots))
    if stage in ("train", "evaluate", "search", "figure", "ranks"):  # by the digests of networks
        counted |= {
            name for roots in sources.NETWORK_ROOTS.values() for name in code.follow_imports(roots)
        }
    names = {
        name
        for module in modules
        for name in imports_of(sources.module_path(module))
        if name.startswith("ianet") and sources.module_path(name)
    }
    # The readers count by the digests of data sets. The others decide no result.
    assert names - counted <= {"ianet", "ianet.readers", "ianet.datasets.listing", "ianet.files"}


def test_the_digest_of_a_text_is_a_constant() -> None:
    """So another version of Python makes nothing stale."""
    text = "# why\n\nx = 1  # because\n\n\ndef f():\n    return '# no comment'\n"
    # printf "x = 1\ndef f():\n    return '# no comment'" | sha256sum
    digest = "56cede873b11ab8a31cc9a9c3f73865b9d470f9827719cbe350fdaa06f6865e5"
    assert digest_code(text) == digest


@pytest.mark.parametrize(
    ("text", "is_same"),
    [
        ("# first\nx = 1\n\n\ny = f(x)", True),
        ("x = 1\n  # indented\ny = f(x)  # behind\n", True),
        ("x = 1\ny = f(  # within\n    # an expression\n    x)", False),  # other lines
        ("x = 2\ny = f(x)\n", False),
        ("x = 1\ny = f(x) # type: ignore\n", True),
        ("if x:\n    x = 1\ny = f(x)\n", False),
        ("x = 1\n    \ny = f(x)\n", True),
        ("x = 1\ny = f('#x')\n", False),
    ],
)
def test_comments_and_blank_lines_change_no_digest(text: str, is_same: bool) -> None:
    assert (digest_code(text) == digest_code("x = 1\ny = f(x)\n")) == is_same


def test_a_number_sign_in_a_text_is_no_comment() -> None:
    first, second = (f"x = '''\n# {word}\n'''\n" for word in ("one", "two"))
    assert digest_code(first) != digest_code(second)
    assert digest_code("x = f'{y}# a'\n") != digest_code("x = f'{y}# b'\n")


def test_comments_do_not_count_code_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ianet").mkdir()
    module = Path("ianet/network.py")
    module.write_text("from ianet import helper\nx = 1\n")
    Path("ianet/helper.py").write_text("y = 1\n")
    first = Code().follow_imports(("ianet.network",))
    assert set(first) == {"ianet.network", "ianet.helper"}
    module.write_text("# why\nfrom ianet import helper\n\nx = 1  # because\n")
    assert Code().follow_imports(("ianet.network",)) == first
    Path("ianet/helper.py").write_text("y = 2\n")
    assert Code().follow_imports(("ianet.network",)) != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"x = 1\ndef f(:\n", r"^ianet/network\.py, line 2: invalid syntax"),
        (b"x = '\xff'\n", r"^ianet/network\.py is no Python \(.*\): write the file anew$"),
    ],
)
def test_a_module_that_is_no_python_is_named(
    text: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ianet").mkdir()
    Path("ianet/network.py").write_bytes(text)
    with pytest.raises(SettingsError, match=message):
        Code().follow_imports(("ianet.network",))


@pytest.mark.slow
def test_an_edit_changes_what_depends_on_it_and_no_more(project: Path) -> None:
    settings = change_settings()
    write_sources(settings)
    assert changes(settings) == set()

    def edit(name: str, text: str) -> set[str]:
        path = project / name
        path.write_text(path.read_text() + text)
        return changes(settings)

    assert edit("ianet/blocks/cbam.py", "\n# a comment\n") == set()
    networks = {f"networks/cbam/{purpose}" for purpose in sources.NETWORK_ROOTS}
    assert edit("ianet/blocks/cbam.py", "\nEDITED = 1\n") == networks
    assert edit("ianet/retrieval.py", "\nEDITED = 1\n") == {
        f"networks/{name}/evaluate" for name in settings.networks
    }
    assert edit("pipeline/report/cells.py", "\nEDITED = 1\n") == {"stages/table", "stages/curve"}
    assert edit("pipeline/report/page.html.jinja", "\n") == {
        "stages/table", "stages/blocks", "stages/cost", "stages/report",
    }  # fmt: skip
    assert edit("pipeline/report/relation_maps.py", "\nEDITED = 1\n") == {"stages/figure"}
    assert edit("pipeline/report/costs.py", "\nEDITED = 1\n") == {"stages/cost"}
    assert edit("pipeline/report/overview.py", "\nEDITED = 1\n") == {"stages/report"}
    assert edit("pipeline/tracking/server.py", "\nEDITED = 1\n") == set()  # decides no result


def test_the_content_of_a_weights_file_changes_its_network(project: Path) -> None:
    (project / "mine.safetensors").write_bytes(b"first")
    settings = change_settings(networks={"mine": {"weights": "mine.safetensors"}})
    assert Path("mine.safetensors") in input_files(settings)
    write_sources(settings)
    (project / "mine.safetensors").write_bytes(b"second")
    assert changes(settings) == {f"networks/mine/{purpose}" for purpose in sources.NETWORK_ROOTS}
    content = json.loads((SOURCES / "networks/mine/train.json").read_text())
    # printf second | sha256sum
    digest = "16367aacb67a4a017c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c4"
    assert content["files"] == {"mine.safetensors": digest}
    # The stage that writes the digests depends on the file.
    plan = Plan(settings, {})
    assert "mine.safetensors" in build_pipeline(plan)["stages"]["sources"]["deps"]


@pytest.mark.slow
def test_files_for_several_backbones_count_and_models_of_the_pipeline_do_not(
    project: Path,
) -> None:
    """`train` itself depends on the file of such a model."""
    for name in ("mine/resnet18.pth", "models/synthetic.base.quick.0/model.safetensors"):
        (project / name).parent.mkdir(parents=True)
        (project / name).write_bytes(b"first")
    other = project / "models/mine/best.pth"  # no model of a run
    other.parent.mkdir()
    other.write_bytes(b"first")
    options = {
        "a": {"weights": "mine/{backbone}.pth"},
        "b": {"weights": "models/synthetic.base.quick.0"},
        "c": {"weights": "models/mine/best.pth"},
    }
    settings = change_settings(networks=options)
    assert {str(path) for path in input_files(settings)} == {
        "mine/resnet18.pth",
        "models/mine/best.pth",
    }
    write_sources(settings)
    (project / "mine/resnet18.pth").write_bytes(b"second")
    assert changes(settings) == {f"networks/a/{purpose}" for purpose in sources.NETWORK_ROOTS}
    (project / "models/synthetic.base.quick.0/model.safetensors").write_bytes(b"second")
    assert changes(settings) == set()


@pytest.mark.slow
def test_the_content_of_a_recipes_and_a_readers_file_count_too(project: Path) -> None:
    (project / "mine.safetensors").write_bytes(b"first")
    (project / "protocol").write_bytes(b"first")  # without a suffix
    params = yaml.safe_load(Path("params.yaml").read_text())
    recipe = params["recipes"]["quick"]
    recipe["network"] = {**recipe["network"], "weights": "mine.safetensors"}
    params["datasets"]["synthetic"]["without"] = []
    params["datasets"]["pretraining"]["networks"] = "all"
    dataset = params["datasets"]["cuhk03-labeled-new"]
    dataset["options"]["config"] = "protocol"
    settings = change_settings(
        recipes=params["recipes"],
        datasets=params["datasets"],
        at_hand=["synthetic", "cuhk03-labeled-new"],
    )
    assert {str(path) for path in input_files(settings)} == {"mine.safetensors", "protocol"}
    write_sources(settings)
    (project / "mine.safetensors").write_bytes(b"second")
    assert changes(settings) == {"recipes/quick"}
    (project / "protocol").write_bytes(b"second")
    assert changes(settings) == {"datasets/cuhk03-labeled-new"}


@pytest.mark.slow
def test_an_estimate_of_minutes_trains_nothing_again(project: Path) -> None:
    write_sources(change_settings())
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["recipes"]["quick"]["minutes"] = 123
    assert changes(change_settings(recipes=params["recipes"])) == set()
    params["recipes"]["quick"]["training"]["lr"] = 123
    assert changes(change_settings(recipes=params["recipes"])) == {"recipes/quick"}


def test_every_dependency_in_build_sources_is_written(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Code, "follow_imports", lambda self, roots: {}
    )  # names count here, not digests
    write_sources(load())
    names = {f"build/sources/{path.relative_to(SOURCES)}" for path in SOURCES.rglob("*.json")}
    monkeypatch.chdir(ROOT)
    plan = load_plan()
    for stage in build_pipeline(plan)["stages"].values():
        content = stage.get("do", stage)
        for dep in content.get("deps", []):
            for key, item in stage.get("foreach", {"": {}}).items():
                path = dep.replace("${key}", key)
                for name, text in item.items():
                    path = path.replace(f"${{item.{name}}}", str(text))
                assert not path.startswith("build/sources/") or path in names, path
