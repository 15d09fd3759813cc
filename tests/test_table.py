"""Tables by hand: means, spreads, differences, gains, and their texts."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ianet.comparison import Estimate, estimate_mean
from pipeline.config.experiments import Table
from pipeline.config.settings import Settings
from pipeline.plan.plan import Plan
from pipeline.plan.runs import Evaluation, Run
from pipeline.report import cells, findings, page
from pipeline.report.cells import Results, build_panel, build_section, describe, read_results
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
    content = {"top-1": top, "mAP": mean, "split": "test", "torch": version}
    return content | {"machine": "a CPU"}


def queries_of(top: list[float], mean: list[float] | None) -> pd.DataFrame:
    """Queries 3, 5, ... of as many persons, each with a match among 100 images."""
    scores = {"top-1": top} if mean is None else {"top-1": top, "mAP": mean}
    persons = {"person": range(len(top)), "matches": 1, "candidates": 100}
    return pd.DataFrame({**persons, **scores}, [3 + 2 * place for place in range(len(top))])


def results_of(scores: dict[Evaluation, dict[str, Any]]) -> Results:
    """With two queries that are as good as the mean."""
    queries = {
        each: queries_of(2 * [one["top-1"]], None if one["mAP"] is None else 2 * [one["mAP"]])
        for each, one in scores.items()
    }
    return Results(scores, queries)


def test_table_by_hand() -> None:
    table, plan = build_plan(0, 1, 2, networks=["base"])
    # Mean 0.90 and standard deviation 0.02 of 88, 90, 92 percent.
    tops = (0.88, 0.90, 0.92)
    scores = {evaluation("base", seed): score(top, 0.75) for seed, top in enumerate(tops)}
    results = results_of(scores)
    frame = cells.compute_cells(table, plan, results)
    first = frame.round(6).iloc[0].dropna().to_dict()
    assert first == {
        "group": "",
        "label": "base.",
        "dataset": "market1501",
        "metric": "top-1",
        "ours": 90.0,
        # 4.3027 is Student's t for two degrees of freedom.
        "low": round(90 - 4.30265273 * 2 / 3**0.5, 6),
        "high": round(90 + 4.30265273 * 2 / 3**0.5, 6),
        "spread": 2.0,
        "chance": False,
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
    assert [row.is_run for row in panel.rows] == [True, False]
    assert [cell.kind for cell in panel.rows[0].cells][::4] == ["best", "best", ""]
    assert "recipe paper, 3 seeds, scored on test" in describe(frame, table, plan, results)


def test_gain_by_hand() -> None:
    """Two persons, a seed: the gain is the mean difference, its error half of their difference."""
    table, plan = build_plan(0, networks=["base", "stage2"])
    queries = {
        evaluation("base"): queries_of([0.0, 1.0], [0.5, 0.5]),
        evaluation("stage2"): queries_of([1.0, 1.0], [0.75, 0.75]),
    }
    scores = {each: score(*frame[["top-1", "mAP"]].mean()) for each, frame in queries.items()}
    results = Results(scores, queries)
    frame = cells.compute_cells(table, plan, results)
    top, mean = frame[frame.label == "lost"].itertuples()
    # 0, 50 and 100 with chances 1/4, 1/2 and 1/4: a deviation of 35.4. t has one degree: 12.7.
    assert top.gain == 50
    assert top.gain_high - 50 == pytest.approx(12.706 * 35.355, rel=0.05)
    assert 50 - top.gain_low == pytest.approx(top.gain_high - 50)
    assert (mean.gain, mean.gain_low, mean.gain_high) == (25, 25, 25)
    assert mean.gain_p == 1  # one seed tells nothing of other seeds
    row = build_panel(frame, "market1501").rows[1]
    assert row.cells[5] == page.Cell("+25.0 [+25.0, +25.0]", "unsure")  # one seed is no finding
    note = describe(frame, table, plan, results)
    assert "Gain: over base, with a 95 % interval for other persons" in note
    assert "2 comparisons" in note
    assert "With fewer than 3 seeds no gain is a finding" in note
    assert "would be found" not in note
    _, section = build_section("t", table, plan, results)
    [first, largest], best, _ = findings.find({"t": (section, frame)})
    assert largest == (
        "The largest gain on market1501: Table: lost, +25.0 mAP [+25.0, +25.0], no finding."
    )
    assert first.startswith("Comparisons with another network, in mAP: 1. None is a finding")
    assert best == ["Table on market1501: lost, 75.0 % mAP"]


@pytest.mark.parametrize(("base", "kind"), [(0.5, "gain"), (0.9, "loss"), (0.699, "unsure")])
def test_a_gain_over_three_seeds_is_a_finding_where_the_seeds_agree(base: float, kind: str) -> None:
    table, plan = build_plan(0, 1, 2, networks=["base", "stage2"])
    residues = 0.001 * np.array([[1, -2, 1, 0], [0, 1, -2, 1], [1, 0, 1, -2]])
    queries = {}
    for seed in range(3):
        queries[evaluation("base", seed)] = queries_of([0.0] * 4, [base] * 4)
        mean = list(0.7 + residues[seed] + 0.001 * (seed - 1))
        queries[evaluation("stage2", seed)] = queries_of([0.0] * 4, mean)
    scores = {each: score(*frame[["top-1", "mAP"]].mean()) for each, frame in queries.items()}
    results = Results(scores, queries)
    frame, section = build_section("t", table, plan, results)
    cell = section.panels[0].rows[1].cells[5]
    assert cell.kind == kind
    assert cell.text.endswith({"gain": "] ▲", "loss": "] ▼", "unsure": "]"}[kind])
    gain = frame[(frame.label == "lost") & (frame.metric == "mAP")].iloc[0]
    sentences, unsure, _ = findings.find({"t": (section, frame)})
    named = f"Table: lost {100 * (0.7 - base):+.1f}" if kind != "unsure" else "none"
    assert sentences[0].endswith(f"for a table: {named}.")
    lost, best = (f"Table on market1501: {name} % mAP" for name in ("lost, 70.0", "base., 90.0"))
    assert sentences[1].startswith(f"The largest gain on market1501: Table: lost, {gain.gain:+.1f}")
    assert sentences[1].endswith(f"], {'no' if kind == 'unsure' else 'a'} finding.")
    assert sentences[2:] == ([f"{lost}, a finding over base."] if kind == "gain" else [])
    assert unsure == {"gain": [], "loss": [best], "unsure": [lost]}[kind]
    assert "for other persons and, over several seeds, other seeds" in section.note
    [smallest] = frame.detectable[(frame.label == "lost") & (frame.metric == "mAP")]
    assert f"found with a chance of 80 %: 0.0 in top-1, {smallest:.1f} in mAP" in section.note
    assert section.picture.count("<svg") == 1
    assert gain.gain == pytest.approx(100 * (0.7 - base), abs=0.1)
    # Two comparisons: top-1 has p = 1, so the smaller p is doubled by Holm.
    values = pd.concat(
        [
            queries[evaluation("stage2", s)].mAP - queries[evaluation("base", s)].mAP
            for s in range(3)
        ],
        axis=1,
    )
    assert gain.gain_p == pytest.approx(min(1, 2 * estimate_mean(values, range(4)).p_value))


def test_a_gain_of_one_seed_makes_no_other_gain_more_certain() -> None:
    """The smallest p-value of three seeds is that of the first of four comparisons."""
    certain, unsure = Estimate(0.1, 0.001, 99), Estimate(0.02, 0.01, 10)
    gains = cells._describe_gains([certain, None, unsure, certain, unsure], [1, 3, 3, 2, 1])
    assert certain.p_value < 1e-9
    assert gains.gain_p.tolist() == pytest.approx(
        [1, math.nan, 4 * unsure.p_value, 1, 1], nan_ok=True
    )
    assert 4 * unsure.p_value < 1


def test_a_score_of_random_rankings_is_told() -> None:
    """One match among 100 images: the mean of 1 / rank is 5.2 %."""
    table, plan = build_plan(0, networks=["base"])
    texts = []
    for mean in ([0.02, 0.09], [0.30, 0.31]):
        queries = {evaluation("base"): queries_of([0.0, 0.0], mean)}
        results = Results({evaluation("base"): score(0.0, sum(mean) / 2)}, queries)
        _, section = build_section("t", table, plan, results)
        assert ("Chance: no better than random rankings" in section.note) == (mean[0] < 0.1)
        texts.append(section.panels[0].rows[0].cells[4].text)
    assert texts == ["5.5 (chance)", "30.5"]


def test_what_a_protocol_does_not_define_is_a_dash() -> None:
    table, plan = build_plan(0, networks=["base"])
    frame = cells.compute_cells(table, plan, results_of({evaluation("base"): score(0.5, None)}))
    assert build_panel(frame, "market1501").rows[0].cells[4].text == "–"


def test_a_single_seed_has_no_spread() -> None:
    table, plan = build_plan(0, networks=["base"])
    results = results_of({evaluation("base"): score(0.5, 0.25)})
    frame = cells.compute_cells(table, plan, results)
    row = build_panel(frame, "market1501").rows[0]
    assert [cell.text for cell in row.cells][:4] == ["50.0", "–", "90.4", "-40.4"]
    assert pd.isna(frame.spread).all()
    note = describe(frame, table, plan, results)
    assert "recipe paper, 1 seed, scored on test" in note


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        (["2.13.0", "2.13.0"], ". Trained with torch 2.13.0 on a CPU. In percent"),
        (
            ["2.13.0", "2.11.0+cpu"],
            ". Trained with torch 2.11.0+cpu and 2.13.0 on a CPU. In percent",
        ),
        ([], "Ours: nothing was run. In percent"),
    ],
)
def test_a_note_names_each_version_of_torch(versions: list[str], text: str) -> None:
    table, plan = build_plan(*range(len(versions) or 1), networks=["base"] if versions else [])
    scores = {
        evaluation("base", seed): score(0.5, 0.5, version) for seed, version in enumerate(versions)
    }
    results = results_of(scores)
    assert text in describe(cells.compute_cells(table, plan, results), table, plan, results)


def test_a_note_names_the_rows_of_another_machine() -> None:
    table, plan = build_plan(0, 1, networks=["base", "stage2"], rows=[{**ROWS[0]}, {**ROWS[1]}])
    scores = {
        evaluation(name, seed): score(0.5, 0.5) for name in ("base", "stage2") for seed in (0, 1)
    }
    scores[evaluation("stage2", 1)]["machine"] = "a GPU"
    results = results_of(scores)
    note = describe(cells.compute_cells(table, plan, results), table, plan, results)
    assert "torch 2.13.0 on a CPU; on a GPU: lost. In percent" in note
    for each in scores.values():
        each["machine"] = None  # scores of an earlier version
    note = describe(cells.compute_cells(table, plan, results), table, plan, results)
    assert "torch 2.13.0. In percent" in note


def test_texts_of_a_page() -> None:
    rows = [
        {"label": "A & B_1", "group": "first", "paper": {"market1501": [1.0, 2.0]}},
        {"label": "<b>", "group": "first", "paper": {"market1501": [3.0, None]}},
        {"label": "C → D", "group": "second", "network": "base"},
    ]
    table, plan = build_plan(0, networks=["base"], rows=rows)
    frame = cells.compute_cells(table, plan, results_of({evaluation("base"): score(0.5, 0.25)}))
    section = page.Section("t", "Table", "100 %", [build_panel(frame, "market1501")], "Note.")
    latex = page.to_latex(section)
    assert r"first & A \& B\_1 & -- & 1.0" in latex
    assert r"C $\to$ D & 50.0" in latex
    assert r"100 \%" in latex
    html = page.to_html("Table", [section])
    assert '<th scope="row">&lt;b&gt;</th>' in html
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
    assert r"a\|b {c} ^d\~ \$e\$ \#f \\g" in table[2]
    assert table[2].split("|")[-2].strip() == "45.0"  # and not 45
    latex = page.to_latex(section)
    assert (
        r"a|b \{c\} \textasciicircum{}d\textasciitilde{} \$e\$ \#f \textbackslash{}g & 45.0"
    ) in latex
    assert r"x\textasciicircum{}2 \{y\}" in latex
    assert r"p|q\_1" in latex


@pytest.mark.slow
def test_the_command_writes_its_files_and_prints_what_is_at_hand(
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
        queries_of([mean] * 4, [mean] * 4).to_parquet(files.queries)
    stage.main()
    tables = Path("results/tables")
    suffixes = sorted(path.suffix for path in tables.iterdir())
    assert suffixes == [".csv", ".html", ".md", ".svg", ".tex"]
    printed = capsys.readouterr().out
    assert printed.startswith("Table, market1501\n|")
    assert " 45.0 " in printed  # with its digits, as in the files
    assert printed.partition("\n")[2].strip() in (tables / "t.md").read_text()
    results = read_results("t", table, plan)
    assert set(results.queries) == {evaluation("base"), evaluation("stage2")}
    assert build_section("t", table, plan, results)[1].panels[0].dataset == "market1501"
