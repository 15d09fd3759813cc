"""Settings, the plan, dvc.yaml, the digests of code, tables, and who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ianet.network import Network, NetworkOptions
from ianet.training import Recipe
from pipeline import plan, settings, sources, table
from pipeline.plan import Run
from pipeline.settings import Experiment, Settings, SettingsError

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def changed(**sections: Any) -> Settings:
    return Settings.model_validate({**yaml.safe_load(Path("params.yaml").read_text()), **sections})


def datasets(**changes: dict[str, Any]) -> dict[str, Any]:
    """The section of params.yaml with some options changed."""
    section = yaml.safe_load(Path("params.yaml").read_text())["datasets"]
    return {name: {**options, **changes.get(name, {})} for name, options in section.items()}


def test_dvc_yaml_is_up_to_date() -> None:
    current = settings.load()
    assert Path("dvc.yaml").read_text() == plan.rendered(current, settings.experiments(current))


@pytest.mark.parametrize("recipe", list(settings.load().recipes))
@pytest.mark.parametrize("network", list(settings.load().networks))
def test_every_network_of_params_yaml_can_be_built(network: str, recipe: str) -> None:
    current = settings.load()
    settings.options(Recipe, current.recipes[recipe].training, recipe)
    described = {**current.recipes[recipe].network, **current.networks[network], "weights": "none"}
    Network(3, settings.options(NetworkOptions, described, network))


def test_paper_recipe_is_the_papers() -> None:
    training = settings.load().recipes["paper"].training
    wanted = {"height": 256, "width": 128, "lr": 3e-4, "batch": 32, "epochs": 60}
    assert {name: training[name] for name in wanted} == wanted


def test_strong_recipe_is_that_of_bag_of_tricks() -> None:
    """Luo et al. (CVPRW 2019), Sections 2 and 3."""
    recipe = settings.load().recipes["strong"]
    assert recipe.network == {
        "backbone": "resnet50", "weights": "imagenet", "neck": True, "bias": False,
    }  # fmt: skip
    assert recipe.training == {
        "height": 256, "width": 128, "epochs": 120, "batch": 16 * 4, "images_per_identity": 4,
        "lr": 3.5e-4, "weight_decay": 5e-4, "schedule": "step", "milestones": [40, 70],
        "warm_up": 10, "flip": 0.5, "padding": 10, "erasing": 0.5, "label_smoothing": 0.1,
        "triplet_margin": 0.3,
    }  # fmt: skip


def test_each_run_once_each_cell_its_run_and_no_run_without_a_cell() -> None:
    current = changed(
        at_hand=["synthetic", "market1501"], datasets=datasets(market1501={"seeds": [0, 1, 2]})
    )
    tables = settings.experiments(current)
    twice = {**tables, "again": tables["table4f"]}
    runs = plan.plan(current, twice)
    assert len(runs) == len(set(runs)) == 5 * (1 + 3)
    assert set(runs) == {
        Run(dataset, row.network, current.datasets[dataset].recipe, seed)
        for experiment in twice.values()
        for row in experiment.rows
        for dataset in current.at_hand
        for seed in current.datasets[dataset].seeds
    }


def test_a_data_set_can_be_limited_to_some_networks() -> None:
    current = changed(datasets=datasets(synthetic={"networks": ["base", "stage23"]}))
    runs = plan.plan(current, settings.experiments(current))
    assert [run.network for run in runs] == ["base", "stage23"]


def test_stages_depend_on_their_own_parts_only() -> None:
    current = settings.load()
    stages = plan.pipeline(current, settings.experiments(current))["stages"]
    assert stages["train"]["foreach"]["synthetic-stage2-quick-0"] == {
        "dataset": "synthetic",
        "network": "stage2",
        "recipe": "quick",
        "seed": 0,
        "size": "64x32",
    }
    assert stages["train"]["do"]["params"] == [
        "networks.${item.network}",
        "recipes.${item.recipe}",
    ]
    for whole in ("ianet", "pipeline", "params.yaml", "build/sources"):
        assert whole not in stages["train"]["do"]["deps"]
    assert [dep for dep in stages["table4f"]["deps"] if dep.startswith("results")] == [
        f"results/scores/synthetic-{name}-quick-0.json"
        for name in ("base", "stage2", "stage3", "stage23-c", "stage23")
    ]


def test_closure_of_what_is_really_imported() -> None:
    base = sources.closure(sources.ROOTS["train"])
    assert set(base) == {
        "ianet.network",
        "ianet.backbones",
        "ianet.training",
        "ianet.images",
        "ianet.losses",
    }
    assert set(sources.closure((*sources.ROOTS["train"], "ianet.blocks.ia"))) - set(base) == {
        "ianet.blocks.ia",
        "ianet.relations",
    }
    assert "ianet.retrieval" in sources.closure(sources.ROOTS["evaluate"])


def test_comments_do_not_count_code_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ianet").mkdir()
    module = Path("ianet/network.py")
    module.write_text("from ianet import helper\nx = 1\n")
    Path("ianet/helper.py").write_text("y = 1\n")
    first = sources.closure(("ianet.network",))
    assert set(first) == {"ianet.network", "ianet.helper"}
    module.write_text("# why\nfrom ianet import helper\n\nx = 1  # because\n")
    assert sources.closure(("ianet.network",)) == first
    Path("ianet/helper.py").write_text("y = 2\n")
    assert sources.closure(("ianet.network",)) != first


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"at_hand": ["duke"]}, "at_hand names 'duke', but datasets has only synthetic"),
        ({"datasets": datasets(synthetic={"recipe": "fast"})}, "names 'fast', but recipes has"),
        ({"datasets": datasets(synthetic={"networks": ["x"]})}, "names 'x', but networks has"),
        ({"datasets": datasets(synthetic={"sauce": "x"})}, "sauce"),
        ({"datasets": datasets(synthetic={"seeds": []})}, "at least 1 item"),
        ({"workers": 0}, "workers"),
        ({"networks": {"../x": {}}}, "String should match pattern"),
        ({"recipes": {"quick": {"training": {"width": 3}}}}, "training.height must be given"),
    ],
)
def test_mistakes_in_params_yaml(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        changed(**sections)


def test_mistakes_name_the_file_and_the_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rewritten: Callable[[Path, str, str], None],
) -> None:
    text = Path("params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"params\.yaml does not exist: run this in the"):
        settings.load()
    Path("params.yaml").write_text(text)
    rewritten(Path("params.yaml"), "held_out: 20", "held_out: many")
    with pytest.raises(SettingsError, match=r"^params\.yaml: datasets\.synthetic\.held_out: "):
        settings.load()
    Path("params.yaml").write_text("at_hand: [")
    with pytest.raises(SettingsError, match=r"params\.yaml is not YAML"):
        settings.load()


def test_mistakes_in_a_table_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current = settings.load()
    rows = [{"label": "a", "network": "stage9", "paper": {}}]
    described = {"title": "T", "caption": "c", "metrics": ["mAP"], "rows": rows}
    monkeypatch.setattr(settings, "EXPERIMENTS", tmp_path)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(SettingsError, match=r"t\.yaml: row 'a' names 'stage9'"):
        settings.experiments(current)
    rows[0]["paper"] = {"market1501": [1.0, 2.0]}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(SettingsError, match="row 'a' has 2 numbers of the paper for market1501"):
        settings.experiments(current)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbon": "resnet18"}, r"networks\.a has no option backbon: choose from backbone"),
        ({"neck": "perhaps"}, r"networks\.a: neck: "),
        ({"position": "before"}, r"networks\.a: position: "),
    ],
)
def test_mistakes_in_options(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings.options(NetworkOptions, values, "networks.a")


TABLE = Experiment.model_validate(
    {
        "title": "Table",
        "caption": "of two networks",
        "metrics": ["top-1", "mAP"],
        "rows": [
            {"label": "base.", "network": "base", "paper": {"market1501": [90.4, 76.2]}},
            {"label": "lost", "network": "stage2", "paper": {"market1501": [None, 82.8]}},
        ],
    }
)


def score(top: float, mean: float) -> dict[str, Any]:
    return {"top-1": top, "mAP": mean, "split": "test"}


def test_table_by_hand() -> None:
    current = changed(
        at_hand=["market1501"],
        datasets=datasets(market1501={"seeds": [0, 1, 2], "networks": ["base"]}),
    )
    # Mean 0.90 and standard deviation 0.02 of 88, 90, 92 percent.
    scores = {
        Run("market1501", "base", "paper", seed): score(top, 0.75)
        for seed, top in enumerate((0.88, 0.90, 0.92))
    }
    cells = table.cells(TABLE, current, scores)
    assert cells.round(6).iloc[0].to_dict() == {
        "label": "base.",
        "dataset": "market1501",
        "metric": "top-1",
        "ours": 90.0,
        "spread": 2.0,
        "paper": 90.4,
        "difference": -0.4,
        "seeds": 3,
        "split": "test",
    }
    lost = cells[cells.label == "lost"]
    assert lost.ours.isna().all()
    assert lost.paper.isna().tolist() == [True, False]
    shown = table.lines(cells, "market1501")
    assert shown.loc["base."].tolist() == [
        "90.0 ± 2.0", "90.4", "-0.4", "75.0 ± 0.0", "76.2", "-1.2", "3",
    ]  # fmt: skip
    assert shown.loc["lost"].tolist() == ["–", "–", "–", "–", "82.8", "–", "–"]
    assert "recipe paper, 3 seeds, scored on test" in table.notes(cells, current)


def test_a_single_seed_has_no_spread() -> None:
    current = settings.load()
    cells = table.cells(TABLE, current, {Run("synthetic", "base", "quick", 0): score(0.5, 0.25)})
    assert table.lines(cells, "synthetic").loc["base."].tolist()[:3] == ["50.0", "–", "–"]
    assert pd.isna(cells.spread).all()
    assert "recipe quick, 1 seed, scored on test" in table.notes(cells, current)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_imports_run_one_way() -> None:
    """pipeline -> ianet, and inside: network -> blocks -> relations, network -> backbones."""
    for path in sorted(Path("ianet").rglob("*.py")):
        outside = {name.split(".")[0] for name in imports(path)}
        assert not outside & {"pipeline", "ray", "mlflow", "dvc", "yaml"}, path
    for name, forbidden in {
        "relations": ["ianet.blocks", "ianet.network", "ianet.backbones"],
        "training": ["ianet.network", "ianet.backbones", "ianet.blocks", "ianet.datasets"],
        "retrieval": ["ianet.network", "ianet.backbones", "ianet.blocks", "ianet.datasets"],
        "backbones": ["ianet.network", "ianet.blocks"],
    }.items():
        found = imports(Path(f"ianet/{name}.py"))
        assert not [one for one in found for bad in forbidden if one.startswith(bad)], name


def test_init_files_hold_no_logic() -> None:
    for path in (*Path("ianet").rglob("__init__.py"), *Path("pipeline").rglob("__init__.py")):
        assert not path.read_text().strip(), path
