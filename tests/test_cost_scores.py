"""Scores over costs: which networks, which numbers, and where labels stand."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.text import Annotation, Text

from ianet import drawing
from pipeline.config.experiments import CostTable
from pipeline.config.settings import Settings, load
from pipeline.plan.runs import Evaluation, Run
from pipeline.report.cost_scores import add_picture, join_scores
from pipeline.report.page import Section
from pipeline.stages.cost import count_costs

NAMES = ("squeeze-excitation", "base", "stage3", "cia", "mobilenet_v2")
TABLE = CostTable.model_validate(
    {
        **{"kind": "cost", "title": "T", "caption": "C", "recipe": "paper"},
        "rows": [{"label": f"{name} & more", "network": name} for name in NAMES],
    }
)
SECTION = Section("cost", "T", "C", [], "Note.")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = load()
    monkeypatch.chdir(tmp_path)
    return settings


def evaluate(score: float | None, network: str, recipe: str = "quick", seed: int = 0,
             on: str = "synthetic", operations: int | None = 3 * 10**9) -> Evaluation:  # fmt: skip
    """An evaluation whose file of scores is written."""
    evaluation = Evaluation(Run("synthetic", network, recipe, seed), on)
    evaluation.scores.parent.mkdir(parents=True, exist_ok=True)
    scores = {"top-1": 0, "mAP": score, "torch": "2"}
    cost = {} if operations is None else {"multiply_adds": operations}
    evaluation.scores.write_text(json.dumps(scores | cost))
    return evaluation


def test_a_network_has_the_cost_of_its_runs_and_the_mean_over_its_seeds(settings: Settings) -> None:
    evaluations = [
        *(evaluate(score, "base", seed=seed) for seed, score in enumerate((0.5, 0.625, 0.75))),
        evaluate(1.0, "base", on="market1501"),  # across domains
        evaluate(0.25, "squeeze-excitation", operations=5 * 10**9),
        evaluate(None, "stage3"),  # a protocol without mAP
        evaluate(0.5, "stage2"),  # which the table of costs does not name
        evaluate(0.5, "cia", "quick-strong"),  # the only one by this recipe
        evaluate(0.5, "mobilenet_v2"),  # the only one of this backbone
        evaluate(0.5, "stage3", operations=None, seed=1),  # a file without the cost
        evaluate(0.5, "stage3", seed=2),
    ]
    [(title, [squeeze, base])] = join_scores(TABLE, evaluations, settings).items()
    assert title == "synthetic, recipe quick, resnet18"
    assert (base.label, base.score) == ("base & more", 62.5)
    assert (squeeze.label, squeeze.score) == ("squeeze-excitation & more", 25)
    assert (base.multiply_adds, squeeze.multiply_adds) == (3, 5)


def test_costs_are_those_of_the_recipes_backbone_and_size() -> None:
    rows = [{"label": name, "network": name, "paper": 4} for name in ("base", "squeeze-excitation")]
    table = CostTable.model_validate({**TABLE.model_dump(), "recipe": "quick", "rows": rows})
    base, squeeze = count_costs(table, load()).to_dict("records")
    # ResNet-18 without a classifier, and the BatchNorm of the neck.
    assert base["parameters"] == pytest.approx((11_176_512 + 2 * 512) / 1e6)
    assert base["more"] == 0
    assert squeeze["more"] == pytest.approx(2 * (128 * 8 + 256 * 16) / 1e9)
    assert squeeze["multiply_adds"] == pytest.approx(base["multiply_adds"] + squeeze["more"])
    assert (base["label"], squeeze["label"], base["paper"]) == ("base", "squeeze-excitation", 4)


def test_the_picture_holds_the_labels_as_text(settings: Settings) -> None:
    assert add_picture(SECTION, TABLE, [evaluate(0.5, "base")], settings) is SECTION
    evaluations = [evaluate(0.5, "base"), evaluate(0.25, "squeeze-excitation")]
    section = add_picture(SECTION, TABLE, evaluations, settings)
    assert section.picture_name == "mAP over multiply-adds"
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", section.picture)
    labels = [text for text in texts if text.endswith("more")]
    assert labels == ["base &amp; more", "squeeze-excitation &amp; more"]


def test_points_stand_at_their_numbers_and_labels_below_each_other() -> None:
    """Three of the networks are at one place."""
    costs = [drawing.Cost(name, 0.5, 53.5) for name in ("b", "c", "d")]
    panels = {
        "first": [drawing.Cost("worst", 0.75, 52), *costs, drawing.Cost("best", 0.25, 54)],
        "second": [drawing.Cost("e", 4, 80), drawing.Cost("f", 5, 81)],
    }
    figure = drawing.draw_scores_over_costs(panels, "mAP")
    figure.draw_without_rendering()
    for axes, (title, networks) in zip(figure.axes, panels.items(), strict=True):
        assert axes.get_title() == title
        assert axes.get_ylabel() == "mAP (%)"
        points = [(*line.get_xdata(), *line.get_ydata()) for line in axes.lines]
        assert sorted(points) == sorted((cost.multiply_adds, cost.score) for cost in networks)
        notes = [text for text in axes.texts if isinstance(text, Annotation)]
        places = {cost.label: (cost.multiply_adds, cost.score) for cost in networks}
        assert {note.get_text(): note.xy for note in notes} == places
        scores = [places[note.get_text()][1] for note in notes]
        assert scores == sorted(scores, reverse=True)
        boxes = [Text.get_window_extent(note) for note in notes]
        assert all(upper.y0 > lower.y1 for upper, lower in pairwise(boxes))
        frame = axes.get_window_extent()
        assert all(frame.x1 < box.x0 and box.x1 < figure.bbox.x1 for box in boxes)
