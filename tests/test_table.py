"""Tables by hand: means, spreads, differences, gains, and their texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from pipeline import page, table
from pipeline.experiments import Table
from pipeline.plan import Evaluation, Plan, Run
from pipeline.settings import Settings
from pipeline.table import Results

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


def made(*seeds: int, networks: list[str], rows: list[dict[str, Any]] = ROWS) -> tuple[Table, Plan]:
    """A table of rows, with Market-1501 at hand."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["at_hand"] = ["market1501"]
    params["datasets"]["market1501"] |= {"seeds": list(seeds), "networks": networks}
    content = {"kind": "table", "title": "Table", "caption": "of two", "metrics": ["top-1", "mAP"]}
    sheet = Table.model_validate({**content, "rows": rows})
    return sheet, Plan(Settings.model_validate(params), {"t": sheet})


def evaluation(network: str, seed: int = 0) -> Evaluation:
    return Evaluation(Run("market1501", network, "paper", seed), "market1501")


def score(top: float, mean: float | None) -> dict[str, Any]:
    return {"top-1": top, "mAP": mean, "split": "test"}


def test_table_by_hand() -> None:
    sheet, plan = made(0, 1, 2, networks=["base"])
    # Mean 0.90 and standard deviation 0.02 of 88, 90, 92 percent.
    tops = (0.88, 0.90, 0.92)
    scores = {evaluation("base", seed): score(top, 0.75) for seed, top in enumerate(tops)}
    cells = table.cells(sheet, plan, Results(scores, {}))
    first = cells.round(6).iloc[0].dropna().to_dict()
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
        "runs": "market1501-base-paper-0 market1501-base-paper-1 market1501-base-paper-2",
    }
    lost = cells[cells.label == "lost"]
    assert lost.ours.isna().all()
    assert lost.paper.isna().tolist() == [True, False]
    part = table.shown(cells, "market1501")
    assert part.columns == [
        "top-1", "gain [95 %]", "paper's", "difference",
        "mAP", "gain [95 %]", "paper's", "difference", "seeds",
    ]  # fmt: skip
    texts = {line.label: [cell.text for cell in line.cells] for line in part.lines}
    assert texts == {
        "base.": ["90.0 ± 2.0", "–", "90.4", "-0.4", "75.0 ± 0.0", "–", "76.2", "-1.2", "3"],
        "lost": ["–", "–", "–", "–", "–", "–", "82.8", "–", "–"],
    }
    # Within the spread of 2.0, and outside that of 0.
    kinds = [cell.kind for cell in part.lines[0].cells]
    assert (kinds[3], kinds[7]) == ("within", "outside")
    assert "recipe paper, 3 seeds, scored on test" in table.notes(cells, sheet, plan)


def test_gain_by_hand() -> None:
    """Queries 3 and 5: the gain is the mean difference, its interval that of the bootstrap."""
    sheet, plan = made(0, networks=["base", "stage2"])
    queries = {
        evaluation("base"): pd.DataFrame({"top-1": [0.0, 1.0], "mAP": [0.5, 0.5]}, [3, 5]),
        evaluation("stage2"): pd.DataFrame({"top-1": [1.0, 1.0], "mAP": [0.75, 0.75]}, [3, 5]),
    }
    scores = {one: score(*query.mean()) for one, query in queries.items()}
    cells = table.cells(sheet, plan, Results(scores, queries))
    top, mean = cells[cells.label == "lost"].itertuples()
    assert (top.gain, top.gain_low, top.gain_high) == (50, 0, 100)
    assert (mean.gain, mean.gain_low, mean.gain_high) == (25, 25, 25)
    line = table.shown(cells, "market1501").lines[1]
    assert line.cells[1] == page.Cell("+50.0 [+0.0, +100.0]", "unsure")
    assert line.cells[5] == page.Cell("+25.0 [+25.0, +25.0]", "gain")
    assert "Gain: over base, with a 95 %" in table.notes(cells, sheet, plan)
    assert "says nothing of other seeds" in table.notes(cells, sheet, plan)


def test_what_a_protocol_does_not_define_is_a_dash() -> None:
    sheet, plan = made(0, networks=["base"])
    cells = table.cells(sheet, plan, Results({evaluation("base"): score(0.5, None)}, {}))
    assert [cell.text for cell in table.shown(cells, "market1501").lines[0].cells][4] == "–"


def test_a_single_seed_has_no_spread() -> None:
    sheet, plan = made(0, networks=["base"])
    cells = table.cells(sheet, plan, Results({evaluation("base"): score(0.5, 0.25)}, {}))
    line = table.shown(cells, "market1501").lines[0]
    assert [cell.text for cell in line.cells][:4] == ["50.0", "–", "90.4", "-40.4"]
    assert line.cells[3].kind == ""  # whether that is much, one seed cannot tell
    assert pd.isna(cells.spread).all()
    assert "recipe paper, 1 seed, scored on test" in table.notes(cells, sheet, plan)


def test_texts_of_a_page() -> None:
    rows = [
        {"label": "A & B_1", "group": "first", "paper": {"market1501": [1.0, 2.0]}},
        {"label": "<b>", "group": "first", "paper": {"market1501": [3.0, None]}},
        {"label": "C → D", "group": "second", "network": "base"},
    ]
    sheet, plan = made(0, networks=["base"], rows=rows)
    cells = table.cells(sheet, plan, Results({evaluation("base"): score(0.5, 0.25)}, {}))
    section = page.Section("t", "Table", "100 %", [table.shown(cells, "market1501")], "Note.")
    latex = page.latex(section)
    assert r"first & A \& B\_1 & -- & 1.0" in latex
    assert r"C $\to$ D & 50.0" in latex
    assert r"100 \%" in latex
    html = page.html("Table", [section])
    assert "<th>&lt;b&gt;</th>" in html
    assert html.count('<tr class="group">') == 2
    assert "src=" not in html
    assert "http" not in html
    markdown = page.markdown(section)
    assert [line.split("|")[1].strip() for line in markdown.splitlines() if "|" in line] == [
        "", ":-------", "first", "", "second",
    ]  # fmt: skip
