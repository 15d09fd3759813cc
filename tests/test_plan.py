"""Settings, the plan, dvc.yaml, the digests of code, and who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ianet.network import Network, NetworkOptions
from ianet.training import Recipe
from pipeline import plan, settings, sources
from pipeline.cost import TIMED
from pipeline.experiments import Portraits, Scored, Table, experiments
from pipeline.plan import Evaluation, Plan, Run
from pipeline.settings import Settings, SettingsError

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


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (Run("synthetc", "base", "quick", 0), "names 'synthetc', but datasets of params.yaml has"),
        (Run("synthetic", "bas", "quick", 0), "names 'bas', but networks of params.yaml has"),
        (Run("synthetic", "base", "quik", 0), "names 'quik', but recipes of params.yaml has"),
    ],
)
def test_a_command_with_a_name_that_is_not_there(run: Run, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan.checked(run, settings.load())


def test_dvc_yaml_is_up_to_date() -> None:
    for path, text in plan.rendered(plan.load_plan()).items():
        assert path.read_text() == text


@pytest.mark.parametrize(
    ("network", "recipe"),
    [(network, "quick") for network in settings.load().networks]
    + [("base", recipe) for recipe in settings.load().recipes],
)
def test_every_network_and_recipe_of_params_yaml_can_be_built(network: str, recipe: str) -> None:
    current = settings.load()
    settings.options(Recipe, current.recipes[recipe].training, recipe)
    described = {**current.recipes[recipe].network, **current.networks[network], "weights": "none"}
    Network(3, settings.options(NetworkOptions, described, network))


@pytest.mark.parametrize("recipe", settings.load().recipes)
def test_every_recipe_can_be_timed(recipe: str) -> None:
    """Those with a longer warm-up than the epochs that are timed, too."""
    described = settings.load().recipes[recipe].training
    assert settings.options(Recipe, {**described, **TIMED}, recipe).epochs == 2


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


def sheets_of(current: Settings, *names: str) -> Plan:
    """A plan of some tables only."""
    found = experiments(current)
    return Plan(current, {name: found[name] for name in names})


def test_each_run_once_each_cell_its_run_and_no_run_without_a_cell() -> None:
    current = changed(
        at_hand=["synthetic", "market1501", "msmt17"],
        datasets=datasets(market1501={"seeds": [0, 1, 2]}),
    )
    whole = Plan(current, experiments(current))
    evaluations = whole.evaluations()
    assert len(evaluations) == len(set(evaluations))
    assert len({one.key for one in evaluations}) == len(evaluations)
    described = {
        (run.dataset, yaml.safe_dump(current.networks[run.network]), run.recipe, run.seed)
        for run in plan.runs_of(evaluations)
    }
    assert len(described) == len(plan.runs_of(evaluations)), "two runs train the same network"
    scored = [sheet for sheet in whole.sheets.values() if isinstance(sheet, Scored)]
    cells = {one for sheet in scored for _, own in whole.rows(sheet) for one in own}
    portraits = [sheet for sheet in whole.sheets.values() if isinstance(sheet, Portraits)]
    drawn = {Evaluation(run, run.dataset) for run in map(whole.portrayed, portraits) if run}
    assert set(evaluations) == cells | drawn
    for sheet in scored:
        for row, own in whole.rows(sheet):
            if row.network is None:
                assert not own
                continue
            expected = {
                (on, seed)
                for on in whole.datasets(sheet)
                for seed in current.datasets[row.trained_on or on].seeds
                if (row.trained_on or on) in current.at_hand
            }
            assert {(one.on, one.run.seed) for one in own} == expected
            assert {one.run.network for one in own} <= {row.network}


def test_a_data_set_stands_in_the_papers_tables_for_it_and_a_new_one_in_all() -> None:
    current = changed(at_hand=["synthetic", "market1501", "msmt17"])
    whole = Plan(current, experiments(current))

    def shown(name: str) -> list[str]:
        sheet = whole.sheets[name]
        assert isinstance(sheet, Scored)
        return whole.datasets(sheet)

    assert shown("table1") == shown("table4a") == ["synthetic", "market1501"]
    assert shown("table3") == ["synthetic", "msmt17"]
    assert shown("neighbours") == ["synthetic", "market1501", "msmt17"]  # not in the paper


def test_a_data_set_can_be_limited_to_some_networks() -> None:
    current = changed(datasets=datasets(synthetic={"networks": ["base", "stage23"]}))
    runs = plan.runs_of(sheets_of(current, "table4f").evaluations())
    assert [run.network for run in runs] == ["base", "stage23"]
    alone = changed(datasets=datasets(synthetic={"networks": ["stage23"]}))
    deps = plan.pipeline(sheets_of(alone, "table4f"))["stages"]["table4f"]["deps"]
    # Nothing to compare it with.
    assert [dep for dep in deps if dep.startswith("results")] == [
        "results/scores/synthetic-stage23-quick-0.json"
    ]


def test_a_table_needs_its_own_runs_only() -> None:
    whole = plan.load_plan()
    assert [one.run.network for one in whole.evaluations(["table4d"])] == [
        "base", "cia", "parallel", "cia-sia", "stage3",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match=r"experiments/table9\.yaml does not exist: choose"):
        whole.evaluations(["table9"])


def test_a_figure_that_shows_nothing_at_hand_is_described_all_the_same() -> None:
    current = changed(at_hand=["market1501"])
    whole = Plan(current, experiments(current))
    with pytest.raises(SettingsError, match=r"figure8\.yaml shows no data set at hand"):
        whole.sheet("figure8", Portraits)
    assert whole.described("figure8", Portraits).title == "Figure 8"
    with pytest.raises(SettingsError, match=r"search_sigma\.yaml is a search, which `make search`"):
        whole.described("search_sigma", Portraits)


def test_a_row_may_be_trained_elsewhere_and_names_its_recipe_by_its_part() -> None:
    current = changed(at_hand=["synthetic", "market1501"])
    rows = [
        {"label": "a", "network": "base", "trained_on": "market1501"},
        {"label": "b", "network": "base", "recipe": "strong"},
    ]
    content = {"kind": "table", "title": "T", "caption": "c", "metrics": ["mAP"], "rows": rows}
    across = Plan(current, {"t": Table.model_validate(content)})
    assert [one.key for one in across.evaluations()] == [
        "market1501-base-paper-0-on-synthetic",
        "market1501-base-paper-0",
        "synthetic-base-quick-strong-0",
        "market1501-base-strong-0",
    ]
    stages = plan.pipeline(across)["stages"]
    assert list(stages["prepare"]["foreach"]) == ["market1501", "synthetic"]
    assert list(stages["pack"]["foreach"]) == [
        "market1501-256x128", "synthetic-256x128", "synthetic-64x32",
    ]  # fmt: skip
    # A table that has nothing to show is left out.
    content["rows"] = rows[:1]
    alone = Plan(settings.load(), {"t": Table.model_validate(content)})
    assert list(plan.pipeline(alone)["stages"]["train"]["foreach"]) == []
    with pytest.raises(SettingsError, match=r"t\.yaml shows no data set at hand: choose"):
        alone.sheet("t", Table)


def test_stages_depend_on_their_own_parts_only() -> None:
    stages = plan.pipeline(sheets_of(settings.load(), "table4f"))["stages"]
    assert stages["train"]["foreach"]["synthetic-stage2-quick-0"] == {
        "dataset": "synthetic",
        "network": "stage2",
        "recipe": "quick",
        "seed": 0,
        "size": "64x32",
    }
    assert "params" not in stages["train"]["do"]
    assert "build/sources/networks/${item.network}/train.json" in stages["train"]["do"]["deps"]
    assert "build/sources/recipes/${item.recipe}.json" in stages["train"]["do"]["deps"]
    assert "build/sources/packing.json" in stages["pack"]["do"]["deps"]
    assert "build/sources/drawing.json" in stages["report"]["deps"]
    for whole in ("ianet", "pipeline", "params.yaml", "build/sources"):
        assert whole not in stages["train"]["do"]["deps"]
        assert whole not in stages["pack"]["do"]["deps"]
    networks = ("base", "stage2", "stage3", "stage23-c", "stage23")
    assert {dep for dep in stages["table4f"]["deps"] if dep.startswith("results")} == {
        f"results/{kind.format(f'synthetic-{name}-quick-0')}"
        for name in networks
        for kind in ("scores/{}.json", "queries/{}.parquet")
    }


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
        (
            {"datasets": datasets(synthetic={"recipes": {"plain": "fast"}})},
            "names 'fast', but recipes has",
        ),
        ({"datasets": datasets(synthetic={"recipes": {"strong": "strong"}})}, "plain on this data"),
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


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"label": "a", "network": "stage9"}], r"t\.yaml: row 'a' names 'stage9', but networks"),
        ([{"label": "a", "network": "base", "recipe": "stong"}], "row 'a' names 'stong', but rec"),
        ([{"label": "a", "trained_on": "duke"}], "row 'a' names 'duke', but datasets has only"),
        ([{"label": "a", "paper": {"x": [1.0, 2.0]}}], "row 'a' has 2 numbers of the paper for x"),
        ([{"label": "a", "against": "base"}], "row 'a' is compared with 'base', which no row of"),
        ([{"label": "a"}, {"label": "a"}], "two rows are called 'a'"),
    ],
)
def test_mistakes_in_a_table_are_named(
    rows: list[dict[str, Any]], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = settings.load()
    described = {"kind": "table", "title": "T", "caption": "c", "metrics": ["mAP"], "rows": rows}
    monkeypatch.setattr("pipeline.experiments.EXPERIMENTS", tmp_path)
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(SettingsError, match=message):
        experiments(current)


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
