"""Tables by hand: means, spreads, differences, gains, and their texts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ianet.features import extract
from ianet.network import Network, save
from ianet.options import NetworkOptions
from pipeline.config.experiments import Table
from pipeline.config.settings import Settings
from pipeline.plan.plan import Plan
from pipeline.plan.runs import Evaluation, Run
from pipeline.report import cells, overview, page
from pipeline.report.cells import Results, build_panel, build_section, describe, read_results
from pipeline.served import Features
from pipeline.stages import table as stage

ROWS: list[dict[str, Any]] = [
    {"label": "base.", "network": "base", "paper": {"market1501": [90.4, 76.2]}},
    {
        "label": "lost",
        "network": "stage2",
        "against": "base",
        "paper": {"market1501": [None, 82.8]},
    },
]


@pytest.fixture(autouse=True)
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])


def build_plan(
    *seeds: int, networks: list[str], rows: list[dict[str, Any]] = ROWS
) -> tuple[Table, Plan]:
    """A table of rows, with Market-1501 at hand."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["at_hand"] = ["market1501"]
    params["datasets"]["market1501"] |= {"seeds": list(seeds), "networks": networks}
    content = {"kind": "table", "title": "Table", "caption": "of two", "metrics": ["top-1", "mAP"]}
    table = Table.model_validate({**content, "rows": rows})
    return table, Plan(Settings.model_validate(params), {"t": table})


def evaluation(network: str, seed: int = 0) -> Evaluation:
    return Evaluation(Run("market1501", network, "paper", seed), "market1501")


def score(top: float, mean: float | None, version: str = "2.13.0") -> dict[str, Any]:
    return {"top-1": top, "mAP": mean, "split": "test", "torch": version}


def test_table_by_hand() -> None:
    table, plan = build_plan(0, 1, 2, networks=["base"])
    # Mean 0.90 and standard deviation 0.02 of 88, 90, 92 percent.
    tops = (0.88, 0.90, 0.92)
    scores = {evaluation("base", seed): score(top, 0.75) for seed, top in enumerate(tops)}
    results = Results(scores, {})
    frame = cells.cells(table, plan, results)
    first = frame.round(6).iloc[0].dropna().to_dict()
    assert first == {
        "group": "",
        "label": "base.",
        "dataset": "market1501",
        "metric": "top-1",
        "ours": 90.0,
        "spread": 2.0,
        "paper": 90.4,
        "difference": -0.4,
        "against": "",
        "seeds": 3,
        "split": "test",
        "runs": "market1501.base.paper.0 market1501.base.paper.1 market1501.base.paper.2",
    }
    lost = frame[frame.label == "lost"]
    assert lost.ours.isna().all()
    assert lost.paper.isna().tolist() == [True, False]
    panel = build_panel(frame, "market1501")
    assert panel.columns == [
        "top-1", "gain [95 %]", "paper's", "difference",
        "mAP", "gain [95 %]", "paper's", "difference", "seeds",
    ]  # fmt: skip
    texts = {row.label: [cell.text for cell in row.cells] for row in panel.rows}
    assert texts == {
        "base.": ["90.0 ± 2.0", "–", "90.4", "-0.4", "75.0 ± 0.0", "–", "76.2", "-1.2", "3"],
        "lost": ["–", "–", "–", "–", "–", "–", "82.8", "–", "–"],
    }
    # Within the spread of 2.0, and outside that of 0.
    kinds = [cell.kind for cell in panel.rows[0].cells]
    assert (kinds[3], kinds[7]) == ("within", "outside")
    assert "recipe paper, 3 seeds, scored on test" in describe(frame, table, plan, results)


def test_gain_by_hand() -> None:
    """Queries 3 and 5: the gain is the mean difference, its interval that of the bootstrap."""
    table, plan = build_plan(0, networks=["base", "stage2"])
    queries = {
        evaluation("base"): pd.DataFrame({"top-1": [0.0, 1.0], "mAP": [0.5, 0.5]}, [3, 5]),
        evaluation("stage2"): pd.DataFrame({"top-1": [1.0, 1.0], "mAP": [0.75, 0.75]}, [3, 5]),
    }
    results = Results({each: score(*frame.mean()) for each, frame in queries.items()}, queries)
    frame = cells.cells(table, plan, results)
    top, mean = frame[frame.label == "lost"].itertuples()
    assert (top.gain, top.gain_low, top.gain_high) == (50, 0, 100)
    assert (mean.gain, mean.gain_low, mean.gain_high) == (25, 25, 25)
    row = build_panel(frame, "market1501").rows[1]
    assert row.cells[1] == page.Cell("+50.0 [+0.0, +100.0]", "unsure")
    assert row.cells[5] == page.Cell("+25.0 [+25.0, +25.0]", "gain")
    note = describe(frame, table, plan, results)
    assert "Gain: over base, with a 95 %" in note
    assert "says nothing of other seeds" in note


def test_what_a_protocol_does_not_define_is_a_dash() -> None:
    table, plan = build_plan(0, networks=["base"])
    frame = cells.cells(table, plan, Results({evaluation("base"): score(0.5, None)}, {}))
    assert build_panel(frame, "market1501").rows[0].cells[4].text == "–"


def test_a_single_seed_has_no_spread() -> None:
    table, plan = build_plan(0, networks=["base"])
    results = Results({evaluation("base"): score(0.5, 0.25)}, {})
    frame = cells.cells(table, plan, results)
    row = build_panel(frame, "market1501").rows[0]
    assert [cell.text for cell in row.cells][:4] == ["50.0", "–", "90.4", "-40.4"]
    assert row.cells[3].kind == ""  # whether that is much, a single seed cannot tell
    assert pd.isna(frame.spread).all()
    note = describe(frame, table, plan, results)
    assert "recipe paper, 1 seed, scored on test" in note


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        (["2.13.0", "2.13.0"], ". Trained with torch 2.13.0. In percent"),
        (["2.13.0", "2.11.0+cpu"], ". Trained with torch 2.11.0+cpu and 2.13.0. In percent"),
        ([], "Ours: nothing was run. Gain: over base"),
    ],
)
def test_a_note_names_each_version_of_torch(versions: list[str], text: str) -> None:
    table, plan = build_plan(*range(len(versions) or 1), networks=["base"] if versions else [])
    scores = {
        evaluation("base", seed): score(0.5, 0.5, version) for seed, version in enumerate(versions)
    }
    results = Results(scores, {})
    assert text in describe(cells.cells(table, plan, results), table, plan, results)


def test_texts_of_a_page() -> None:
    rows = [
        {"label": "A & B_1", "group": "first", "paper": {"market1501": [1.0, 2.0]}},
        {"label": "<b>", "group": "first", "paper": {"market1501": [3.0, None]}},
        {"label": "C → D", "group": "second", "network": "base"},
    ]
    table, plan = build_plan(0, networks=["base"], rows=rows)
    frame = cells.cells(table, plan, Results({evaluation("base"): score(0.5, 0.25)}, {}))
    section = page.Section("t", "Table", "100 %", [build_panel(frame, "market1501")], "Note.")
    latex = page.to_latex(section)
    assert r"first & A \& B\_1 & -- & 1.0" in latex
    assert r"C $\to$ D & 50.0" in latex
    assert r"100 \%" in latex
    html = page.to_html("Table", [section])
    assert "<th>&lt;b&gt;</th>" in html
    assert html.count('<tr class="group">') == 2
    assert "src=" not in html
    assert "http" not in html
    markdown = page.to_markdown(section)
    assert [line.split("|")[1].strip() for line in markdown.splitlines() if "|" in line] == [
        "", ":-------", "first", "", "second",
    ]  # fmt: skip


def test_signs_of_markdown_and_latex_in_a_label() -> None:
    label = r"a|b {c} ^d~ $e$ #f \g"
    rows = [page.TableRow("", label, [page.Cell("45.0")]), page.TableRow("", "h", [page.Cell("7")])]
    section = page.Section("t", "T", "x^2 {y}", [page.Panel("", ["p|q_1"], rows)], "Note.")
    table = [line for line in page.to_markdown(section).splitlines() if "|" in line]
    # As many cells in each line, once the signs that are escaped are taken out.
    assert {line.replace(r"\|", "").count("|") for line in table} == {3}
    assert r"a\|b {c} ^d~ $e$ #f \\g" in table[2]
    assert table[2].split("|")[-2].strip() == "45.0"  # and not 45
    latex = page.to_latex(section)
    assert (
        r"a|b \{c\} \textasciicircum{}d\textasciitilde{} \$e\$ \#f \textbackslash{}g & 45.0"
    ) in latex
    assert r"x\textasciicircum{}2 \{y\}" in latex
    assert r"p|q\_1" in latex


def test_the_command_writes_four_files_and_prints_what_is_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, plan = build_plan(0, networks=["base", "stage2"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage, "load_plan", lambda: plan)
    monkeypatch.setattr(sys, "argv", ["table", "t"])
    with pytest.raises(
        FileNotFoundError,
        match=r"^results/market1501/scores/market1501\.base\.paper\.0\.json does not exist: `dvc "
        r"repro t` trains",
    ):
        stage.main()
    for network, mean in (("base", 0.45), ("stage2", 0.5)):
        files = evaluation(network)
        for path in (files.scores, files.queries):
            path.parent.mkdir(parents=True, exist_ok=True)
        files.scores.write_text(json.dumps(score(mean, mean)))
        pd.DataFrame({"top-1": [mean] * 4, "mAP": [mean] * 4}).to_parquet(files.queries)
    stage.main()
    tables = Path("results/tables")
    assert sorted(path.suffix for path in tables.iterdir()) == [".csv", ".html", ".md", ".tex"]
    printed = capsys.readouterr().out
    assert printed.startswith("Table, market1501\n|")
    assert " 45.0 " in printed  # with its digits, as in the files
    assert printed.partition("\n")[2].strip() in (tables / "t.md").read_text()
    results = read_results("t", table, plan)
    assert set(results.queries) == {evaluation("base"), evaluation("stage2")}
    assert build_section("t", table, plan, results)[1].panels[0].dataset == "market1501"


def test_the_commit_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program git is a stand-in, or missing."""
    git = tmp_path / "git"

    def install(status: str) -> None:
        git.write_text(f"#!/bin/sh\ncase $2 in rev-parse) echo abc1234;; status) {status};; esac\n")
        git.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    install("true")
    assert overview.commit() == "abc1234"
    install("echo ' M ianet/network.py'")
    assert overview.commit() == "abc1234 with changes"
    git.write_text("#!/bin/sh\nexit 128\n")
    assert overview.commit() == "unknown"
    git.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert overview.commit() == "unknown"


def test_the_served_model_refuses_what_is_no_image(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Network(3, NetworkOptions("resnet18")).eval()
    save(network, tmp_path, dataset="synthetic", height=64, width=32)
    model = Features(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 32, 3), dtype=np.uint8)
    expected = extract(network, torch.from_numpy(images), device=torch.device("cpu"))
    features = model.predict(images)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-5, atol=1e-6)
    for mistake, shape in (
        ((images / 255).astype(np.float32), r"float32 of shape \(2, 64, 32, 3\)"),
        (images[0], r"uint8 of shape \(64, 32, 3\)"),
        (images.transpose(0, 3, 1, 2), r"uint8 of shape \(2, 3, 64, 32\)"),
        (images.astype(np.int64), "int64 of shape"),
    ):
        with pytest.raises(
            ValueError, match=rf"^images are {shape}[^\n]*: give uint8 from 0"
        ) as info:
            model.predict(mistake)  # type: ignore[arg-type]
        assert "\n" not in str(info.value)
