"""The table of what blocks do, from files of scores to its cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.experiments import BlockTable
from pipeline.config.settings import load
from pipeline.plan.plan import Plan
from pipeline.report.blocks import build_section, measure_blocks
from pipeline.report.page import to_markdown

ROWS = [{"label": "IA", "network": "stage3"}, {"label": "SE", "network": "squeeze-excitation"}]
TABLE = BlockTable.model_validate(
    {"kind": "blocks", "title": "T", "caption": "C", "metrics": ["mAP"], "rows": ROWS}
)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two seeds, whose files of scores are written."""
    settings = load()
    seeds = {"seeds": (0, 1), "networks": "all"}
    synthetic = settings.datasets["synthetic"].model_copy(update=seeds)
    datasets = {**settings.datasets, "synthetic": synthetic}
    plan = Plan(settings.model_copy(update={"datasets": datasets}), {"blocks": TABLE})
    monkeypatch.chdir(tmp_path)

    def write(place: tuple[int, int], mean: float | None, *blocks: dict[str, Any]) -> None:
        row, seed = place
        path = plan.rows(TABLE)[row][1][seed].scores
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"top-1": 0, "mAP": mean, "torch": "2", "blocks": blocks}))

    sia = {"name": "blocks.stage3.1.sia", "residual_ratio": 0.5, "scale": 0.01, "entropy": 0.9}
    cia = {"name": "blocks.stage3.1.cia", "residual_ratio": 0.0, "scale": 0.0, "entropy": 0.25}
    write((0, 0), 0.5, sia, cia)
    write((0, 1), 0.7, {**sia, "residual_ratio": 0.1, "entropy": 0.8}, cia)
    squeeze = {"name": "blocks.stage3.1", "residual_ratio": 2, "scale": None, "entropy": None}
    write((1, 0), None, squeeze)
    write((1, 1), None, squeeze)
    return plan


def test_a_line_is_a_block_and_a_number_the_mean_over_the_seeds(plan: Plan) -> None:
    frame = measure_blocks(TABLE, plan).set_index(["dataset", "label", "block"])
    assert list(frame.index) == [
        ("synthetic", "IA", "stage3.1.sia"),
        ("synthetic", "IA", "stage3.1.cia"),
        ("synthetic", "SE", "stage3.1"),
    ]
    sia = frame.iloc[0]
    assert sia.to_dict() == pytest.approx(
        {"mAP": 60, "residual_ratio": 0.3, "scale": 0.01, "entropy": 0.85, "seeds": 2}
    )
    assert frame.iloc[2].isna().to_dict() == {
        "mAP": True, "residual_ratio": False, "scale": True, "entropy": True, "seeds": False,
    }  # fmt: skip


def test_a_page_shows_percent_of_the_input_and_a_dash_where_there_is_no_number(plan: Plan) -> None:
    text = to_markdown(build_section("blocks", TABLE, measure_blocks(TABLE, plan)))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["IA", "stage3.1.sia", "60.0", "30.00", "0.0100", "0.85000", "2"] in lines
    assert ["", "stage3.1.cia", "60.0", "0.00", "0.0000", "0.25000", "2"] in lines
    assert ["SE", "stage3.1", "–", "200.00", "–", "–", "2"] in lines
