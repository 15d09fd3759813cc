"""params.yaml and experiments/: what they hold, and mistakes in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ianet.network import Network
from ianet.options import NetworkOptions
from ianet.training.recipe import Recipe
from pipeline.config.experiments import STAGES, read_experiments
from pipeline.config.settings import (
    Settings,
    SettingsError,
    build,
    build_network,
    build_recipe,
    check_known,
    load,
)

SETTINGS = load()


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])


SIZES = {
    "train_identities": 6, "test_identities": 5, "distractors": 4, "junk": 2, "seed": 0,
}  # fmt: skip


def change_settings(**sections: Any) -> Settings:
    return Settings.model_validate({**yaml.safe_load(Path("params.yaml").read_text()), **sections})


def datasets(**changes: dict[str, Any]) -> dict[str, Any]:
    """The section of params.yaml with other values of some options."""
    section = yaml.safe_load(Path("params.yaml").read_text())["datasets"]
    return {name: {**options, **changes.get(name, {})} for name, options in section.items()}


@pytest.mark.parametrize(
    ("network", "recipe"),
    [(network, "quick") for network in SETTINGS.networks]
    + [("base", recipe) for recipe in SETTINGS.recipes],
)
def test_every_network_and_recipe_of_params_yaml_can_be_built(network: str, recipe: str) -> None:
    build_recipe(recipe, SETTINGS.recipes[recipe])
    options = {**SETTINGS.networks[network], "weights": "none"}
    Network(3, build_network(network, options, SETTINGS.recipes[recipe]))


def test_paper_recipe_is_the_papers() -> None:
    training = load().recipes["paper"].training
    expected = {"height": 256, "width": 128, "lr": 3e-4, "batch": 32, "epochs": 60}
    assert {name: training[name] for name in expected} == expected


def test_strong_recipe_is_that_of_bag_of_tricks() -> None:
    """Luo et al. (CVPRW 2019), Sections 2 and 3."""
    recipe = load().recipes["strong"]
    assert recipe.network == {
        "backbone": "resnet50", "weights": "imagenet", "neck": True, "bias": False,
    }  # fmt: skip
    assert recipe.training == {
        "height": 256, "width": 128, "epochs": 120, "batch": 16 * 4, "images_per_identity": 4,
        "lr": 3.5e-4, "weight_decay": 5e-4, "schedule": "step", "milestones": [40, 70],
        "warm_up": 10, "flip": 0.5, "padding": 10, "erasing": 0.5, "label_smoothing": 0.1,
        "triplet_margin": 0.3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"at_hand": ["duke"]}, "at_hand names 'duke', but datasets has only synthetic"),
        (
            {"datasets": datasets(synthetic={"recipes": {"plain": "fast"}})},
            "names 'fast', but recipes has",
        ),
        ({"datasets": datasets(synthetic={"recipes": {"strong": "strong"}})}, "plain on this data"),
        ({"datasets": datasets(synthetic={"networks": ["x"]})}, "names 'x', but networks has"),
        ({"datasets": datasets(synthetic={"sauce": "x"})}, "sauce"),
        ({"datasets": datasets(synthetic={"seeds": []})}, "at least 1 item"),
        ({"datasets": {**datasets(), "tables": datasets()["synthetic"]}}, "a folder of results/"),
        ({"datasets": datasets(synthetic={"seeds": [2**63]})}, "less than 9223372036854775808"),
        ({"datasets": datasets(synthetic={"seeds": [1, 1]})}, "1 stands there more than once"),
        ({"datasets": datasets(synthetic={"networks": ["base", "base"]})}, "'base' stands there"),
        ({"at_hand": ["synthetic", "synthetic"]}, "'synthetic' stands there more than once"),
        (
            {"datasets": datasets(synthetic={"synthetic": {**SIZES, "distractors": 1e12}})},
            "distractors is 10+: it must be 99999",
        ),
        (
            {"datasets": datasets(synthetic={"synthetic": {**SIZES, "junk": -1}})},
            "junk is -1: it must be 0 or more",
        ),
        ({"datasets": datasets(synthetic={"without": ["x"]})}, "without names 'x', but networks"),
        ({"datasets": datasets(synthetic={"source": "a.zip"})}, "the pipeline draws the set into"),
        ({"checkpoint_minutes": math.inf}, "a finite number"),
        ({"workers": 0}, "workers"),
        ({"networks": {"../x": {}}}, "String should match pattern"),
        ({"networks": {"a.b": {}}}, "String should match pattern"),  # dots separate a key's names
        ({"networks": {"a b": {}}}, "String should match pattern"),
        ({"recipes": {"quick": {"training": {"width": 3}}}}, "training.height must be given"),
        (
            {"recipes": {"quick": {"training": {"width": 3, "height": True}}}},
            "training.height must be given",
        ),
        ({"workers": True}, "give auto, or a whole number from 1"),
        ({"checkpoint_minutes": True}, "true is no number: give a number"),
        ({"datasets": datasets(synthetic={"held_out": True})}, "true is no number"),
        ({"datasets": datasets(synthetic={"held_out": "3"})}, "'3' is a text: give a number, with"),
        ({"workers": "2"}, "give auto, or a whole number from 1"),
        ({"datasets": datasets(synthetic={"seeds": [False]})}, "false is no number"),
        (
            {"datasets": datasets(synthetic={"synthetic": {**SIZES, "seed": True}})},
            "true is no num",
        ),
        (
            {"datasets": datasets(synthetic={"source": ""})},
            "the path is empty: name a folder or an",
        ),
    ],
)
def test_mistakes_in_params_yaml(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change_settings(**sections)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "workers: auto",
            "workers: 0",
            r"workers \(line \d+\): give auto, or a whole number from 1",
        ),
        (
            "    seeds:\n    - 0\n",
            "    seeds:\n    - true\n",
            r"\.seeds\.0 \(line \d+\): true is no number: give a number\Z",
        ),
        (
            "cluster:\n  address: null\n  storage: null\n",
            "cluster: null\n",
            r"cluster \(line \d+\): options are missing here: give lines of `name: value`\Z",
        ),
        (
            "cluster:\n  address: null\n",
            "cluster:\n  address: null\n  adress: null\n",
            r"cluster\.adress \(line \d+\): no option has this name: correct or remove the name\Z",
        ),
        ("networks: all", "networks: al", r"networks\.all \(line \d+\): Input should be 'all'"),
        ("networks: all", "networks: [base, base]", r"\(line \d+\): 'base' stands there more than"),
    ],
)
def test_a_mistake_is_a_line(
    old: str, new: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["datasets"]["synthetic"]["networks"] = "all"
    text = yaml.safe_dump({**content, "workers": "auto"})
    assert old in text
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(SettingsError, match=message) as info:
        load()
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (3, "this is no list: give lines of `- value`"),
        ([], "the list is too short: 1 is the least number of its entries"),
    ],
)
def test_a_mistake_in_a_list_is_told_in_plain_words(
    seeds: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["datasets"]["synthetic"]["seeds"] = seeds
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match=rf"\.seeds \(line \d+\): {message}\Z"):
        load()


def test_a_similar_name_is_proposed() -> None:
    names = ["stage2", "stage23", "base"]
    with pytest.raises(SettingsError) as info:
        check_known("stag23", names, "row", "networks")
    message = "row names 'stag23', but networks has only stage2, stage23, base"
    assert str(info.value) == f"{message}. Did you mean stage23?"
    with pytest.raises(SettingsError) as info:
        check_known("x", names, "row", "networks")
    assert str(info.value) == "row names 'x', but networks has only stage2, stage23, base"


def test_mistakes_name_the_file_and_the_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rewritten: Callable[[Path, str, str], None],
) -> None:
    text = Path("params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"params\.yaml does not exist: run this in the"):
        load()
    Path("params.yaml").write_text("")
    with pytest.raises(SettingsError, match=r"^params\.yaml: options are missing here: give lines"):
        load()
    Path("params.yaml").write_text(text)
    rewritten(Path("params.yaml"), "held_out: 20", "held_out: many")
    lines = Path("params.yaml").read_text().splitlines()
    number = 1 + next(place for place, line in enumerate(lines) if "held_out: many" in line)
    message = rf"^params\.yaml: datasets\.synthetic\.held_out \(line {number}\): "
    with pytest.raises(SettingsError, match=message):
        load()
    Path("params.yaml").write_text("at_hand: [")
    with pytest.raises(SettingsError, match=r"^params\.yaml, line 1: expected the node"):
        load()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"label": "a", "network": "stage9"}], r"t\.yaml: row 'a' names 'stage9', but networks"),
        ([{"label": "a", "network": "base", "recipe": "stong"}], "row 'a' names 'stong', but rec"),
        ([{"label": "a", "trained_on": "duke"}], "row 'a' names 'duke', but datasets has only"),
        ([{"label": "a", "paper": {"x": [1.0, 2.0]}}], "row 'a' has 2 numbers of the paper for x"),
        ([{"label": "a", "against": "base"}], "row 'a' is compared with 'base', which no row of"),
        ([{"label": "a"}, {"label": "a"}], "two rows are called 'a'"),
        (
            [{"label": "a", "network": "base", "against": "base"}],
            r"row 'a' is compared with itself: name another network or recipe against",
        ),
        (
            [{"label": "a", "paper": {"market": [1.0]}}],
            r"row 'a' \(paper\) names 'market', but dat",
        ),
    ],
)
def test_mistakes_in_a_table_are_named(
    rows: list[dict[str, Any]], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load()
    content = {"kind": "table", "title": "T", "caption": "c", "metrics": ["mAP"], "rows": rows}
    monkeypatch.setattr("pipeline.config.experiments.EXPERIMENTS", tmp_path)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match=message):
        read_experiments(settings)


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        ([], r"t\.yaml: ranks\.networks"),
        (["stage2", "stage2"], "name a network twice: stage2, stage2, base"),
        (["stage2", "base"], "name a network twice: stage2, base, base"),
        (["stage2", "stage9"], "networks names 'stage9', but networks has only"),
    ],
)
def test_ranked_lists_compare_networks_that_differ(
    networks: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load()
    content = {"kind": "ranks", "title": "T", "caption": "c", "against": "base",
               "queries": 1, "neighbours": 1, "networks": networks}  # fmt: skip
    monkeypatch.setattr("pipeline.config.experiments.EXPERIMENTS", tmp_path)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match=message):
        read_experiments(settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((stage, f"named like the stage '{stage}' of dvc.yaml: give") for stage in STAGES),
        ("a; touch b", "cannot name a stage: rename the file"),
        ("$(touch b)", "cannot name a stage: rename the file"),
        ("a b", "cannot name a stage: rename the file"),
        ("-x", "cannot name a stage: rename the file"),
        ("a.b", "cannot name a stage: rename the file"),
        ("a@b", "cannot name a stage: rename the file"),
        ("tablé", "cannot name a stage: rename the file"),
    ],
)
def test_a_file_that_cannot_name_a_stage_is_refused_in_a_line(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load()
    content = {"kind": "table", "title": "T", "caption": "c", "metrics": ["mAP"],
               "rows": [{"label": "a", "network": "base"}]}  # fmt: skip
    monkeypatch.setattr("pipeline.config.experiments.EXPERIMENTS", tmp_path)
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError) as info:
        read_experiments(settings)
    assert message in str(info.value)
    assert f"{name}.yaml" in str(info.value)
    assert "\n" not in str(info.value)
    (tmp_path / f"{name}.yaml").rename(tmp_path / "t.yaml")
    assert list(read_experiments(settings)) == ["t"]


@pytest.mark.parametrize("name", ["b.yml", "b.YAML", "b.YML"])
def test_another_suffix_of_yaml_is_refused_and_hidden_files_are_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load()
    content = {"kind": "table", "title": "T", "caption": "c", "metrics": ["mAP"],
               "rows": [{"label": "a", "network": "base"}]}  # fmt: skip
    monkeypatch.setattr("pipeline.config.experiments.EXPERIMENTS", tmp_path)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "._t.yaml").write_bytes(b"\0\5\x16\7")
    (tmp_path / ".#t.yaml").symlink_to("someone@computer.1")
    (tmp_path / "notes.md").touch()
    assert list(read_experiments(settings)) == ["t"]
    (tmp_path / name).touch()
    with pytest.raises(SettingsError, match=rf"{name} would be passed over: name it b\.yaml$"):
        read_experiments(settings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbon": "resnet18"}, r"networks\.a has no option backbon: choose from backbone"),
        ({"neck": "perhaps"}, r"networks\.a: neck is 'perhaps': it must be true or false"),
        ({"position": "before"}, r"networks\.a: position is 'before': choose one of stage, block"),
        ({"block": "nonesuch"}, r"networks\.a: .*there is no file ianet/blocks/nonesuch\.py"),
        ({"after": {"stage7": {}}}, r"networks\.a: .*after names stage7: the stages are stage1"),
    ],
)
def test_mistakes_in_options(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        build(NetworkOptions, values, "networks.a")


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "cosin"},
        {"lr": "fast"},
        {"lr": math.nan},
        {"epochs": 2.5},
        {"flip": None},
        {"milestones": ["a"]},
        {"milestones": [20, 10]},
        {"block_lr": 0.0},
        {"lr": True},
        {"epochs": True},
        {"height": True},
        {"block_lr": False},
        {"milestones": [True, 20]},
    ],
)
def test_a_mistake_in_a_recipe_has_the_message_of_the_library(changes: dict[str, Any]) -> None:
    training = {**load().recipes["paper"].training, **changes}
    with pytest.raises(ValueError, match=r"^\w+ (is|are) ") as of_library:
        Recipe(**training)
    with pytest.raises(SettingsError) as of_pipeline:
        build(Recipe, training, "recipes.a.training")
    assert str(of_pipeline.value) == f"params.yaml: recipes.a.training: {of_library.value}"
    assert "\n" not in str(of_pipeline.value)


def test_values_of_yaml_become_those_of_python() -> None:
    training = load().recipes["paper"].training
    plain = build(Recipe, {**training, "milestones": [2, 5], "lr": 1e-4}, "recipes.a.training")
    # YAML takes 1e-4 for a text.
    text = build(Recipe, {**training, "milestones": (2, 5), "lr": "1e-4"}, "recipes.a.training")
    assert plain == text
    assert plain.milestones == (2, 5)


def test_a_recipe_without_a_learning_rate() -> None:
    training = {**load().recipes["paper"].training}
    del training["lr"]
    with pytest.raises(SettingsError, match=r"recipes\.a\.training needs lr, without a default$"):
        build(Recipe, training, "recipes.a.training")


def test_a_network_starts_from_its_recipe() -> None:
    recipe = load().recipes["strong"]
    options = build_network("a", {"neck": False, "weights": "none"}, recipe)
    assert (options.backbone, options.neck, options.bias) == ("resnet50", False, False)
    with pytest.raises(SettingsError, match=r"^params\.yaml: networks\.a has no option sauce"):
        build_network("a", {"sauce": 1}, recipe)
    slow = recipe.model_copy(update={"training": {**recipe.training, "epoch": 1}})
    with pytest.raises(SettingsError, match=r"recipes\.b\.training has no option epoch: choose"):
        build_recipe("b", slow)
