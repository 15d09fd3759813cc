"""Results of another checkout: brought in, shown in tables, refused where they do not fit."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from small import RECORD

from ianet.files import digest_file
from pipeline import import_results
from pipeline.config.experiments import Table
from pipeline.config.settings import PARAMS, Settings, SettingsError
from pipeline.plan.dvc_yaml import build_pipeline
from pipeline.plan.plan import load_plan
from pipeline.plan.runs import Run
from pipeline.report import cells, overview
from pipeline.training.configuration import configure

ROOT = Path(__file__).parents[1]
ROWS = [
    {"label": "base.", "network": "base", "recipe": "cpu"},
    {"label": "IA", "network": "stage23", "recipe": "cpu", "against": "base"},
    {"label": "IA, used", "network": "stage23", "recipe": "cpu-block-lr", "against": "base",
     "against_recipe": "cpu"},
    {"label": "not run", "network": "cia", "recipe": "cpu", "against": "base"},
]  # fmt: skip
TABLE = {"kind": "table", "title": "T", "caption": "c", "metrics": ["mAP"], "rows": ROWS}
BASE, IA, USED = (
    Run("market1501", *names, 0)
    for names in (("base", "cpu"), ("stage23", "cpu"), ("stage23", "cpu-block-lr"))
)
PRECISIONS = {BASE: (0.25, 0.5), IA: (0.5, 0.5), USED: (0.5, 0.75)}  # of two queries


def make_checkout(folder: Path, *at_hand: str) -> None:
    """The project without results: its params.yaml and a table."""
    (folder / "experiments").mkdir(parents=True)
    (folder / "experiments/t.yaml").write_text(yaml.safe_dump(TABLE))
    change_params(folder, at_hand=list(at_hand))


def change_params(folder: Path, **sections: Any) -> None:
    content = yaml.safe_load((ROOT / PARAMS).read_text())
    (folder / PARAMS).write_text(yaml.safe_dump({**content, **sections}, sort_keys=False))


def write_run(folder: Path, run: Run) -> None:
    """What `train` and `evaluate` leave of a run."""
    place = folder / run.folder
    place.mkdir(parents=True)
    (place / "weights.safetensors").write_bytes(run.key.encode())
    settings = Settings.model_validate(yaml.safe_load((ROOT / PARAMS).read_text()))
    options = configure(run, settings.networks[run.network], settings.recipes[run.recipe])
    record = {
        **RECORD,
        "configuration": options.parameters(),
        "commit": "08e2bc5",
    }
    (place / "training.json").write_text(json.dumps(record))
    rows = {"epoch": [1, 2], "loss": [2.0, 1.0], "accuracy": 0.5, "seconds": [1800.0] * 2}
    pd.DataFrame({**rows, "images_per_second": 7.0}).to_csv(place / "history.csv", index=False)
    precisions = PRECISIONS[run]
    scores = folder / f"results/market1501/scores/{run.key}.json"
    scores.parent.mkdir(parents=True, exist_ok=True)
    digest = digest_file(place / "weights.safetensors")
    content = {"top-1": 0.5, "mAP": sum(precisions) / 2, "split": "test", "torch": "2"}
    scores.write_text(json.dumps({**content, "weights": digest}))
    queries = {"person": [3, 5], "matches": 1, "candidates": 9, "top-1": 0.5, "mAP": precisions}
    path = folder / f"results/market1501/queries/{run.key}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(queries).to_parquet(path)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with three runs of Market-1501; the test runs in another checkout."""
    make_checkout(tmp_path / "there", "market1501")
    make_checkout(tmp_path / "here", "synthetic")
    for run in PRECISIONS:
        write_run(tmp_path / "there", run)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "there"


def read_cells() -> tuple[pd.DataFrame, str]:
    """The cells of the table by label, and its note."""
    plan = load_plan()
    table = plan.experiment("t", Table)
    results = cells.read_results("t", table, plan)
    frame, section = cells.build_section("t", table, plan, results)
    return frame[frame.seeds > 0].set_index("label"), section.note


def test_a_table_shows_what_was_brought_in_and_nothing_is_trained(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_plan().experiments == {}
    monkeypatch.setattr(sys, "argv", ["import_results", "../there", "market1501"])
    import_results.main()
    assert capsys.readouterr().out.splitlines() == [
        *sorted(run.key for run in PRECISIONS),
        "3 runs of market1501. make repro ONLY='t' makes their tables",
    ]
    shutil.rmtree(there)
    frame, note = read_cells()
    assert "market1501: recipes cpu, cpu-block-lr, 1 seed, scored on test" in note
    assert "Gain: over base, with" in note
    against = frame.against[frame.gain.notna()]
    assert against.to_dict() == {"IA": "base", "IA, used": "base cpu"}
    assert frame.ours.to_dict() == {"base.": 37.5, "IA": 50.0, "IA, used": 62.5}
    assert frame.gain.dropna().to_dict() == {"IA": 12.5, "IA, used": 25.0}
    assert frame.runs["IA, used"] == USED.key
    plan = load_plan()
    assert plan.evaluations() == []
    assert [each.run for each in plan.foreign_evaluations()] == [BASE, IA, USED]
    stages = build_pipeline(plan)["stages"]
    assert stages["train"]["foreach"] == stages["evaluate"]["foreach"] == {}
    for stage in ("t", "report"):
        assert f"results/market1501/scores/{IA.key}.json" in stages[stage]["deps"]
    assert yaml.safe_load(Path("dvc.yaml").read_text())["stages"] == stages
    lines = pd.read_csv("results/runs.csv", dtype={"commit": str})
    assert lines.key.tolist() == sorted(run.key for run in PRECISIONS)
    assert lines.mAP.tolist() == [0.375, 0.625, 0.5]
    assert set(lines.commit) == {"08e2bc5"}
    assert set(lines.hours) == {1.0}
    assert set(lines.machine) == {"AMD EPYC"}
    assert lines.sha256[0] == hashlib.sha256(BASE.key.encode()).hexdigest()
    [first, *_] = overview.read_foreign_rows(plan.foreign_evaluations())
    assert (first.key, first.scores, first.minutes) == (BASE.key, [50.0, 37.5], 60)


def test_a_baseline_that_was_not_brought_in_leaves_a_dash(there: Path) -> None:
    (there / f"results/market1501/scores/{BASE.key}.json").unlink()
    import_results.import_results(there, "market1501")
    frame, _ = read_cells()
    assert frame.ours.to_dict() == {"IA": 50.0, "IA, used": 62.5}
    assert frame.gain.isna().all()
    Path(f"results/market1501/queries/{IA.key}.parquet").unlink()  # a copy that was stopped
    assert read_cells()[0].ours.to_dict() == {"IA, used": 62.5}


def test_a_table_for_which_others_would_be_trained_is_not_proposed(there: Path) -> None:
    rows = [{"label": "cpu", "network": "base", "recipe": "cpu"}, {"label": "b", "network": "base"}]
    Path("experiments/u.yaml").write_text(yaml.safe_dump({**TABLE, "rows": rows}))
    runs = import_results.import_results(there, "market1501")
    plan = load_plan()
    assert plan.evaluations(["u"])  # on drawn people
    assert import_results.find_tables(plan, runs) == ["t"]


def test_runs_of_before_keep_their_lines(there: Path) -> None:
    import_results.import_results(there, "market1501")
    for run in (IA, USED):
        shutil.rmtree(there / run.folder)
    import_results.import_results(there, "market1501")
    assert len(pd.read_csv("results/runs.csv")) == 3


def test_data_that_are_at_hand_are_not_brought_in(there: Path) -> None:
    change_params(Path(), at_hand=["market1501"])
    with pytest.raises(SettingsError, match="market1501 is at hand here, so its results are made"):
        import_results.import_results(there, "market1501")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "name", "change", "message"),
    [
        (
            *("recipes", "cpu", {"training": {"epochs": 21}}),
            r"run market1501\.base\.cpu\.0: recipe\.epochs is 21 by params\.yaml here and 20 there",
        ),
        (
            *("networks", "stage23", {"position": "block"}),
            r"0: network\.position is block by params\.yaml here and stage there: give both",
        ),
        (
            *("datasets", "market1501", {"held_out": 99}),
            r"datasets\.market1501\.held_out is 99 by params\.yaml here and 100 there",
        ),
    ],
)
def test_results_of_other_options_are_refused(
    there: Path, section: str, name: str, change: dict[str, Any], message: str
) -> None:
    """What a run was trained with counts, not what params.yaml says there by now."""
    entries = yaml.safe_load(Path(PARAMS).read_text())[section]
    for option, value in change.items():
        old = entries[name].get(option)
        entries[name][option] = {**old, **value} if isinstance(old, dict) else value
    change_params(Path(), at_hand=["synthetic"], **{section: entries})
    if section != "datasets":
        change_params(there, at_hand=["market1501"], **{section: entries})
    with pytest.raises(SettingsError, match=message):
        import_results.import_results(there, "market1501")
    assert not Path("results").exists()


def test_other_minutes_and_another_place_of_the_data_are_no_difference(there: Path) -> None:
    content = yaml.safe_load((there / PARAMS).read_text())
    content["recipes"]["cpu"]["minutes"] = 5
    content["datasets"]["market1501"]["source"] = "data/elsewhere"
    (there / PARAMS).write_text(yaml.safe_dump(content, sort_keys=False))
    assert len(import_results.import_results(there, "market1501")) == 3


def test_scores_of_other_weights_are_refused(there: Path) -> None:
    (there / IA.folder / "weights.safetensors").write_bytes(b"trained again")
    with pytest.raises(
        SettingsError, match=rf"{IA.key}\.json is not of the weights in runs/{IA.key}"
    ):
        import_results.import_results(there, "market1501")


def test_scores_that_name_no_weights_are_refused(there: Path) -> None:
    path = there / f"results/market1501/scores/{IA.key}.json"
    content = json.loads(path.read_text())
    del content["weights"]
    path.write_text(json.dumps(content))
    with pytest.raises(SettingsError, match=rf"{IA.key}\.json is not of the weights in runs/"):
        import_results.import_results(there, "market1501")


def test_a_damaged_file_is_named_with_its_checkout(there: Path) -> None:
    (there / f"results/market1501/queries/{IA.key}.parquet").write_bytes(b"PAR1")
    with pytest.raises(SettingsError, match=rf"^in {there}: results/market1501/queries/{IA.key}"):
        import_results.import_results(there, "market1501")


def test_a_damaged_list_here_is_told_before_a_score_is_replaced(there: Path) -> None:
    Path("results").mkdir()
    Path("results/runs.csv").write_text("key,dataset\n")
    with pytest.raises(ValueError, match=r"results/runs\.csv is damaged .*git restore"):
        import_results.import_results(there, "market1501")
    assert not Path("results/market1501").exists()


def test_scores_without_a_run_there_are_left_alone(there: Path) -> None:
    path = there / "results/market1501/scores/market1501.a-name-of-before.cpu.0.json"
    path.write_text("{}")
    assert len(import_results.import_results(there, "market1501")) == 3


def test_what_is_no_checkout_or_has_no_run_is_named(there: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere is no checkout of this project: it holds no"):
        import_results.import_results(there / "nowhere", "market1501")
    with pytest.raises(
        SettingsError, match=r"names 'market', but datasets of params\.yaml has only"
    ):
        import_results.import_results(there, "market")
    with pytest.raises(SettingsError, match=rf"^in {there}: no run has scores on msmt17: train"):
        import_results.import_results(there, "msmt17")
    with pytest.raises(SettingsError, match="pretraining is drawn by this project: name it under"):
        import_results.import_results(there, "pretraining")


def test_drawn_data_are_made_not_shown(there: Path) -> None:
    """The pretraining set is not at hand. Its scores show in no table."""
    path = Path("results/pretraining/scores/pretraining.resnet18.pretrain.0.json")
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert load_plan().experiments == {}
