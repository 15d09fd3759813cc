"""Keys, the plan, and dvc.yaml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import archive_folder
from tiny_models import tiny_model

import ianet
from pipeline.config.experiments import (
    STAGES,
    Experiment,
    RankedLists,
    RelationFigure,
    ScoreTable,
    Search,
    Table,
    check_names,
    read_experiments,
)
from pipeline.config.settings import Settings, SettingsError, load
from pipeline.plan.dvc_yaml import build_pipeline, build_search_pipeline, is_stale, render, write
from pipeline.plan.plan import Plan, check_options, load_plan, unique_runs
from pipeline.plan.runs import Evaluation, Run, parse_evaluation, parse_run
from pipeline.stages.model import join_terms

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def change_settings(**sections: Any) -> Settings:
    return Settings.model_validate({**yaml.safe_load(Path("params.yaml").read_text()), **sections})


def datasets(**changes: dict[str, Any]) -> dict[str, Any]:
    """The section of params.yaml with other values of some options."""
    section = yaml.safe_load(Path("params.yaml").read_text())["datasets"]
    return {name: {**options, **changes.get(name, {})} for name, options in section.items()}


def from_scratch(**sections: Any) -> Settings:
    """Settings whose synthetic runs start from no other run, with changes of some sections."""
    recipes = yaml.safe_load(Path("params.yaml").read_text())["recipes"]
    for name in ("quick", "quick-strong"):
        recipes[name]["network"]["weights"] = "none"
    return change_settings(recipes=recipes, **sections)


def plan_of(settings: Settings, *names: str) -> Plan:
    """A plan of some tables only."""
    files = read_experiments(settings)
    return Plan(settings, {name: files[name] for name in names})


def table_of(*rows: dict[str, Any]) -> Table:
    content = {"kind": "table", "title": "T", "caption": "c", "metrics": ["mAP"], "rows": rows}
    return Table.model_validate(content)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("synthetc.base.quick.0", "names 'synthetc', but datasets of params.yaml has only"),
        ("synthetic.bas.quick.0", "names 'bas', but networks of params.yaml has only"),
        ("synthetic.base.quik.0", "names 'quik', but recipes of params.yaml has only"),
        ("synthetic.base.quick.0.duke", "names 'duke', but datasets of params.yaml has only"),
        ("synthetic-base-quick-0", "^'synthetic-base-quick-0' is no key: give <data set>.<netw"),
        ("synthetic.base.quick", "is no key"),
        ("synthetic.base.quick.-1", "is no key"),
        ("synthetic.base.quick.0.market1501.0", "is no key"),
        ("", "is no key"),
    ],
)
def test_a_key_with_a_name_that_is_not_there(key: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as info:
        parse_evaluation(key, load())
    assert "\n" not in str(info.value)


def test_a_key_is_read_as_it_is_written() -> None:
    settings = load()
    run = Run("market1501", "base", "paper", 12)
    assert run.key == "market1501.base.paper.12"
    assert parse_run(run.key, settings) == run
    across = Evaluation(run, "synthetic")
    assert across.key == "market1501.base.paper.12.synthetic"
    assert parse_evaluation(across.key, settings) == across
    assert str(across.scores) == f"results/synthetic/scores/{across.key}.json"
    assert str(across.queries) == f"results/synthetic/queries/{across.key}.parquet"
    with pytest.raises(SettingsError, match="a run's key has four names"):
        parse_run(across.key, settings)
    for evaluation in load_plan().evaluations():
        assert parse_evaluation(evaluation.key, settings) == evaluation


def test_names_with_hyphens_share_no_key() -> None:
    """Joined by hyphens, both runs would be called synthetic-base-quick-strong-0."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    settings = from_scratch(
        networks={**params["networks"], "base-quick": {}},
        datasets=datasets(synthetic={"recipes": {"plain": "quick-strong", "strong": "strong"}}),
    )
    table = table_of(
        {"label": "a", "network": "base"},
        {"label": "b", "network": "base-quick", "recipe": "strong"},
    )
    plan = Plan(settings, {"t": table})
    first, second = plan.evaluations()
    assert first.run == Run("synthetic", "base", "quick-strong", 0)
    assert second.run == Run("synthetic", "base-quick", "strong", 0)
    keys = ["synthetic.base.quick-strong.0", "synthetic.base-quick.strong.0"]
    assert [first.key, second.key] == keys
    assert [parse_run(key, settings) for key in keys] == [first.run, second.run]
    for paths in ((first.run.folder, second.run.folder), (first.scores, second.scores)):
        assert len(set(paths)) == 2
    stages = build_pipeline(plan)["stages"]
    assert list(stages["train"]["foreach"]) == keys
    assert list(stages["evaluate"]["foreach"]) == keys
    for key, network in zip(keys, ("base", "base-quick"), strict=True):
        assert stages["train"]["foreach"][key]["network"] == network
        assert f"results/synthetic/scores/{key}.json" in stages["t"]["deps"]


def test_dvc_yaml_is_up_to_date() -> None:
    for path, text in render(load_plan()).items():
        assert path.read_text() == text


def test_a_damaged_file_of_the_plan_is_stale_and_a_pipe_is_told(tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    assert is_stale(path, "ä")
    for content, stale in (("ä".encode(), False), (b"\xe4", True), (b"", True)):
        path.write_bytes(content)
        assert is_stale(path, "ä") is stale
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SettingsError, match=r"dvc\.yaml is no regular file: delete it"):
        is_stale(path, "ä")


def test_no_experiment_can_be_named_like_a_stage() -> None:
    plan = load_plan()
    stages = set(build_pipeline(plan)["stages"]) | set(build_search_pipeline(plan)["stages"])
    assert stages - set(plan.experiments) == set(STAGES)


def test_a_source_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(change_settings(at_hand=["synthetic", "msmt17"]), "table4f")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"^data/MSMT17_V1 does not exist: put the data set ms"):
        write(plan)
    assert not list(tmp_path.iterdir())


def test_each_run_once_each_cell_its_run_and_no_run_without_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = from_scratch(
        at_hand=["synthetic", "market1501", "msmt17"],
        datasets=datasets(market1501={"seeds": [0, 1, 2]}, synthetic={"without": []}),
    )
    files = read_experiments(settings)
    monkeypatch.chdir(tmp_path)  # where no data set that is not at hand has results
    plan = Plan(settings, files)
    evaluations = plan.evaluations()
    assert len(evaluations) == len(set(evaluations))
    assert len({evaluation.key for evaluation in evaluations}) == len(evaluations)
    trainings = {
        (run.dataset, yaml.safe_dump(settings.networks[run.network]), run.recipe, run.seed)
        for run in unique_runs(evaluations)
    }
    assert len(trainings) == len(unique_runs(evaluations)), "two runs train the same network"
    tables = [table for table in plan.experiments.values() if isinstance(table, ScoreTable)]
    cells = {each for table in tables for _, row in plan.rows(table) for each in row}
    figures = [
        each for each in plan.experiments.values() if isinstance(each, RelationFigure | RankedLists)
    ]
    runs = {Evaluation(run, run.dataset) for each in figures for run in plan.shown_runs(each)}
    assert set(evaluations) == cells | runs
    for table in tables:
        for row, row_evaluations in plan.rows(table):
            if row.network is None:
                assert not row_evaluations
                continue
            expected = {
                (on, seed)
                for on in plan.datasets(table)
                for seed in table.seeds.get(
                    row.trained_on or on, settings.datasets[row.trained_on or on].seeds
                )
                if (row.trained_on or on) in settings.at_hand
                and row.recipe in settings.datasets[row.trained_on or on].recipes
            }
            assert {(each.on, each.run.seed) for each in row_evaluations} == expected
            assert {each.run.network for each in row_evaluations} <= {row.network}


def test_a_data_set_stands_in_the_papers_tables_for_it_and_a_new_one_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = change_settings(at_hand=["synthetic", "market1501", "msmt17"])
    files = read_experiments(settings)
    monkeypatch.chdir(tmp_path)  # where no data set that is not at hand has results
    plan = Plan(settings, files)

    def names(table: str) -> list[str]:
        return plan.datasets(plan.experiment(table, ScoreTable))

    assert names("table1") == names("table4a") == ["synthetic", "market1501"]
    assert names("table3") == ["synthetic", "msmt17"]
    assert names("neighbours") == ["synthetic", "market1501", "msmt17"]  # not in the paper


def test_a_data_set_can_be_limited_to_some_networks() -> None:
    settings = from_scratch(datasets=datasets(synthetic={"networks": ["base", "cia"]}))
    runs = unique_runs(plan_of(settings, "table4d").evaluations())
    assert [run.network for run in runs] == ["base", "cia"]
    settings = from_scratch(datasets=datasets(synthetic={"without": ["parallel", "cia"]}))
    runs = unique_runs(plan_of(settings, "table4d").evaluations())
    assert [run.network for run in runs] == ["base", "cia-sia", "stage3"]
    alone = from_scratch(datasets=datasets(synthetic={"networks": ["stage3"]}))
    deps = build_pipeline(plan_of(alone, "table4d"))["stages"]["table4d"]["deps"]
    # There is nothing to compare the network with.
    assert [dep for dep in deps if dep.startswith("results")] == [
        "results/synthetic/scores/synthetic.stage3.quick.0.json",
        "results/synthetic/queries/synthetic.stage3.quick.0.parquet",
    ]


def test_a_table_needs_its_own_runs_only() -> None:
    plan = load_plan()
    assert [evaluation.run.network for evaluation in plan.evaluations(["table4d"])] == [
        "resnet18", "base", "cia", "parallel", "cia-sia", "stage3",
    ]  # fmt: skip
    with pytest.raises(SettingsError, match=r"experiments/table9\.yaml does not exist: choose"):
        plan.evaluations(["table9"])


def test_a_figure_that_shows_nothing_at_hand_is_read_all_the_same() -> None:
    settings = change_settings(at_hand=["market1501"])
    plan = Plan(settings, read_experiments(settings))
    with pytest.raises(SettingsError, match=r"figure8\.yaml shows no data set at hand"):
        plan.experiment("figure8", RelationFigure)
    assert plan.file("figure8", RelationFigure).title == "Figure 8"
    with pytest.raises(SettingsError, match=r"table4f\.yaml is of another kind: choose"):
        plan.file("table4f", RelationFigure)
    with pytest.raises(SettingsError, match=r"search_sigma\.yaml is a search, which `make search`"):
        plan.file("search_sigma", Experiment)


def test_a_row_may_be_trained_elsewhere_and_names_its_recipe_by_its_role() -> None:
    settings = from_scratch(at_hand=["synthetic", "market1501"])
    rows = [
        {"label": "a", "network": "base", "trained_on": "market1501"},
        {"label": "b", "network": "base", "recipe": "strong"},
    ]
    across = Plan(settings, {"t": table_of(*rows)})
    assert [evaluation.key for evaluation in across.evaluations()] == [
        "market1501.base.paper.0.synthetic",
        "market1501.base.paper.0",
        "synthetic.base.quick-strong.0",
        "market1501.base.strong.0",
    ]
    stages = build_pipeline(across)["stages"]
    assert list(stages["prepare"]["foreach"]) == ["market1501", "synthetic"]
    assert list(stages["pack"]["foreach"]) == [
        "market1501.256x128", "synthetic.256x128", "synthetic.128x64",
    ]  # fmt: skip
    assert stages["evaluate"]["foreach"]["market1501.base.paper.0.synthetic"] == {
        "run": "market1501.base.paper.0",
        "network": "base",
        "recipe": "paper",
        "on": "synthetic",
        "size": "256x128",
    }
    # A table that has nothing to show is left out.
    alone = Plan(load(), {"t": table_of(rows[0])})
    assert list(build_pipeline(alone)["stages"]["train"]["foreach"]) == []
    with pytest.raises(SettingsError, match=r"t\.yaml shows no data set at hand: choose"):
        alone.experiment("t", Table)


def test_stages_depend_on_their_own_inputs_only() -> None:
    stages = build_pipeline(plan_of(load(), "table4f"))["stages"]
    assert stages["train"]["foreach"]["synthetic.stage2.quick.0"] == {
        "dataset": "synthetic",
        "network": "stage2",
        "recipe": "quick",
        "size": "128x64",
        "start": "models/pretraining.resnet18.pretrain.0/model.safetensors",
    }
    assert stages["train"]["do"]["cmd"] == "python -m pipeline.stages.train ${key}"
    assert "params" not in stages["train"]["do"]
    assert "build/sources/networks/${item.network}/train.json" in stages["train"]["do"]["deps"]
    assert "build/sources/recipes/${item.recipe}.json" in stages["train"]["do"]["deps"]
    assert "build/sources/stages/train.json" in stages["train"]["do"]["deps"]
    assert "build/sources/stages/pack.json" in stages["pack"]["do"]["deps"]
    assert "build/sources/stages/report.json" in stages["report"]["deps"]
    for folder in ("ianet", "pipeline", "params.yaml", "build/sources"):
        assert folder not in stages["train"]["do"]["deps"]
        assert folder not in stages["pack"]["do"]["deps"]
    networks = ("base", "stage2", "stage3", "stage23-c", "stage23")
    assert {dep for dep in stages["table4f"]["deps"] if dep.startswith("results")} == {
        f"results/synthetic/{file.format(f'synthetic.{name}.quick.{seed}')}"
        for name in networks
        for seed in range(3)
        for file in ("scores/{}.json", "queries/{}.parquet")
    }


def test_no_output_belongs_to_two_stages() -> None:
    """Also across the data sets of a file: scores lie in a folder for each."""
    settings = change_settings(at_hand=["synthetic", "market1501", "msmt17"])
    stages = build_pipeline(Plan(settings, read_experiments(settings)))["stages"]
    outputs: list[str] = []
    for stage in stages.values():
        content = stage.get("do", stage)
        files = [
            path if isinstance(path, str) else next(iter(path))
            for path in (*content.get("outs", []), *content.get("metrics", []))
        ]
        for key, item in stage.get("foreach", {"": {}}).items():
            names = {"${key}": key, **{f"${{item.{name}}}": text for name, text in item.items()}}
            for path in files:
                for name, text in names.items():
                    path = path.replace(name, str(text))
                outputs.append(path)
    assert not [path for path in outputs if "$" in path]
    assert len(outputs) == len(set(outputs))


def test_a_table_may_have_seeds_of_its_own_which_its_baselines_share() -> None:
    rows = [{"label": "base.", "network": "base"}, {"label": "IA", "network": "stage3"}]
    rows[1]["against"] = "base"
    sheet = {"kind": "table", "title": "T", "caption": "", "metrics": ["mAP"], "rows": rows}
    table = Table.model_validate({**sheet, "seeds": {"synthetic": [3, 1]}})
    plan = Plan(from_scratch(), {"table": table, "other": Table.model_validate(sheet)})
    [(_, base), (row, evaluations)] = plan.rows(table)
    assert [evaluation.run.seed for evaluation in evaluations] == [3, 1]
    assert [plan.baseline(row, evaluation) for evaluation in evaluations] == base
    # Each run once, whichever table asks for it.
    assert sorted(evaluation.run.seed for evaluation in plan.evaluations()) == [0, 0, 1, 1, 3, 3]
    with pytest.raises(ValueError, match="1 stands there more than once"):
        Table.model_validate({**sheet, "seeds": {"synthetic": [1, 2, 1]}})
    wrong = {
        "table4f": read_experiments(load())["table4f"].model_copy(update={"seeds": {"duke": (0,)}})
    }
    with pytest.raises(SettingsError, match="seeds names 'duke', but datasets has only synthetic"):
        check_names(wrong["table4f"], load())


@pytest.mark.parametrize("name", ["elsewhere", "elsewhere/model.safetensors", "elsewhere.zip"])
def test_a_model_made_elsewhere_brings_its_terms(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["recipes"]["quick"]["network"]["weights"] = name
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "elsewhere"
    tiny_model(folder)
    archive_folder(folder, "zip")
    run, plan = Run("synthetic", "base", "quick", 0), Plan(Settings.model_validate(content), {})
    own = content["datasets"]["synthetic"]["terms"]
    assert join_terms(run, plan) == f"{ianet.load(folder).description.terms} {own}"
    (tmp_path / "elsewhere.zip").write_bytes(b"weights alone")
    (folder / "config.json").write_text('{"of": "another program"}')
    assert join_terms(run, plan) == own


def test_a_run_comes_after_the_run_whose_model_it_starts_from() -> None:
    """Market-1501's people first, then our own, which a third recipe starts from."""
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["recipes"]["second"] = content["recipes"]["short"] | {
        "network": {"backbone": "resnet50", "weights": "models/market1501.base.paper.0"}
    }
    content["recipes"]["third"] = content["recipes"]["short"] | {
        "network": {"backbone": "resnet50", "weights": "models/market1501.base.second.0"}
    }
    content["datasets"]["synthetic"]["recipes"] = {"plain": "third"}
    plan = Plan(Settings.model_validate(content), {"t": table_of({"label": "a", "network": "cia"})})
    first, second = Run("market1501", "base", "paper", 0), Run("market1501", "base", "second", 0)
    third = Run("synthetic", "cia", "third", 0)
    assert plan.starts(third) == [first, second]
    assert unique_runs(plan.evaluations()) == [first, second, third]
    real, synthetic = (content["datasets"][name]["terms"] for name in ("market1501", "synthetic"))
    assert join_terms(third, plan) == f"{real} {synthetic}"
    stages = build_pipeline(plan)["stages"]
    starts = {key: item["start"] for key, item in stages["train"]["foreach"].items()}
    assert starts == {
        first.key: "build/sources/recipes/paper.json",  # which all runs depend on
        second.key: "models/market1501.base.paper.0/model.safetensors",
        third.key: "models/market1501.base.second.0/model.safetensors",
    }
    assert "${item.start}" in stages["train"]["do"]["deps"]
    assert list(stages["synthesize"]["foreach"]) == ["synthetic"]
    # The file of weights in the model's folder names the same run.
    for recipe in ("second", "third"):
        content["recipes"][recipe]["network"]["weights"] += "/model.safetensors"
    table = {"t": table_of({"label": "a", "network": "cia"})}
    assert Plan(Settings.model_validate(content), table).starts(third) == [first, second]


def test_held_out_people_are_unknown_to_the_start() -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["recipes"]["quick"]["network"]["weights"] = "models/synthetic.resnet18.pretrain.0"
    table = {"t": table_of({"label": "a", "network": "cia"})}
    assert Plan(Settings.model_validate(content), table).evaluations()
    content["recipes"]["quick"]["hold_out"] = True
    with pytest.raises(SettingsError, match=r"synthetic\.resnet18\.pretrain\.0, from which others"):
        Plan(Settings.model_validate(content), table).evaluations()
    content["recipes"]["pretrain"]["hold_out"] = True
    assert Plan(Settings.model_validate(content), table).evaluations()


def test_the_starts_of_a_search_are_planned() -> None:
    """No table needs the run from which the trials start."""
    settings = load()
    search = read_experiments(settings)["search_sigma"]
    assert Plan(settings, {"search_sigma": search}).evaluations() == [
        Evaluation(Run("pretraining", "resnet18", "pretrain", 0), "pretraining")
    ]
    content = {
        **search.model_dump(mode="json"),
        "space": {"network.backbone": {"values": ["resnet18"]}},
    }
    with pytest.raises(SettingsError, match=r"start from models/pretraining\.resnet18\S* cannot"):
        check_options(settings, {"search_sigma": Search.model_validate(content)})


def test_each_backbone_starts_from_weights_of_its_own() -> None:
    plan = load_plan()
    run = Run("synthetic", "mobilenet_v2-ia", "quick", 2)
    assert plan.starts(run) == [Run("pretraining", "mobilenet_v2", "pretrain", 0)]


def test_a_run_cannot_start_from_itself() -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["recipes"]["quick"]["network"]["weights"] = "models/synthetic.base.quick.0"
    plan = Plan(Settings.model_validate(content), {"t": table_of({"label": "a", "network": "cia"})})
    with pytest.raises(
        SettingsError, match=r"synthetic\.base\.quick\.0 starts from its own weights"
    ):
        plan.evaluations()
    content["recipes"]["quick"]["network"]["weights"] = "models/synthetic.bas.quick.0"
    plan = Plan(Settings.model_validate(content), {"t": table_of({"label": "a", "network": "cia"})})
    with pytest.raises(SettingsError, match=r"names 'bas', but networks of params\.yaml has only"):
        plan.evaluations()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"recipes": {"training": {"lr": "fast"}}},
            r"params\.yaml: recipes\.strong\.training: lr is 'fast': it must be a finite number",
        ),
        ({"recipes": {"network": {"neck": 7}}}, r"recipes\.strong\.network: neck is 7: it must be"),
        (
            {"networks": {"unused": {"block": "no"}}},
            r"networks\.unused: block is 'no': there is no",
        ),
        (
            {"datasets": {"msmt17": {"reader": "none"}}},
            r"datasets\.msmt17\.reader is 'none': there",
        ),
    ],
)
def test_what_is_not_run_is_checked_too(sections: dict[str, Any], message: str) -> None:
    content = yaml.safe_load(Path("params.yaml").read_text())
    content["networks"] |= sections.get("networks", {})
    for name, options in sections.get("datasets", {}).items():
        content["datasets"][name] |= options
    for name, options in sections.get("recipes", {}).items():
        content["recipes"]["strong"][name] |= options
    settings = Settings.model_validate(content)
    with pytest.raises(SettingsError, match=message) as info:
        check_options(settings, {})
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("network.after.stage3.sigma.0", "network.after.stage9.sigma.0", "is no place in the netw"),
        ("network.after.stage3.sigma.0", "training.lr", r"recipes\.quick\.training: lr is 'slow'"),
    ],
)
def test_a_search_is_checked_without_being_run(old: str, new: str, message: str) -> None:
    settings = load()
    search = read_experiments(settings)["search_sigma"]
    assert isinstance(search, Search)
    value = {"values": ["slow"]} if new == "training.lr" else {"integers": [1, 2]}
    content = {**search.model_dump(mode="json"), "space": {new: value}, "recipe": "quick"}
    content |= {"algorithm": "random", "trials": 2}
    changed = Search.model_validate(content)
    with pytest.raises(SettingsError, match=rf"search_sigma\.yaml: .*{message}"):
        check_options(settings, {"search_sigma": changed})


def test_the_plan_imports_no_torch() -> None:
    code = "import sys; from pipeline.plan.plan import load_plan; load_plan(); print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "ray", "pandas"} & set(output.stdout.split())


def test_a_row_may_be_compared_with_a_network_of_another_recipe() -> None:
    base = {"label": "base.", "network": "base", "recipe": "cpu"}
    row = {"label": "IA", "network": "stage3", "recipe": "cpu-block-lr", "against": "base"}
    with pytest.raises(
        ValueError, match="'base', which no row of the table is, with the recipe 'c"
    ):
        table_of(base, row)
    table = table_of(base, {**row, "against_recipe": "cpu"})
    plan = Plan(change_settings(at_hand=["market1501"]), {"t": table})
    [(_, [first]), (second_row, [second])] = plan.rows(table)
    assert plan.baseline(second_row, second) == first
    del row["against"]
    with pytest.raises(ValueError, match="'IA' has an against_recipe: name a network against"):
        table_of(base, {**row, "against_recipe": "cpu"})
