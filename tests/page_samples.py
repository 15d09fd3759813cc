"""A page of all results, and a page of a table, with what real ones have at their worst."""

from __future__ import annotations

from functools import cache

import pandas as pd

from ianet import drawing
from ianet.ranks_page import LIST_STYLE
from pipeline.plan.runs import Run
from pipeline.report import curves, overview, page, run_list
from pipeline.report.findings import Findings
from pipeline.report.samples import Samples

KEYS = tuple(f"synthetic.a-network-of-a-long-name.quick.{seed}" for seed in range(3))
FAILED = Run("synthetic", "breaks", "quick", 0)
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="


def table_page() -> str:
    """The page of a single table."""
    return page.to_html("Table 1", sections()[:1])


def sections() -> list[page.Section]:
    """Long labels and wide tables, and one of costs."""
    cells = [page.Cell("52.1 ± 0.3", "ours"), page.Cell("+0.5 [-1.5, +2.5]", "unsure")] * 4
    rows = [
        page.TableRow(
            "a group", "graph convolution with a fixed adjacency", [*cells, page.Cell("3")]
        ),
        page.TableRow("another", "base.", [*cells, page.Cell("3", runs=KEYS)]),
        page.TableRow("another", "a rival", [page.Cell("–")] * 9, is_run=False),
    ]
    columns = ["top-1", "gain [95 %]"] * 4 + ["seeds"]
    panel = page.Panel("synthetic", columns, rows)
    costs = page.Panel("", ["multiply-adds"], [page.TableRow("", "base.", [page.Cell("4.053")])])
    points = {"synthetic": [drawing.Cost("base. & more", 0.5, 53), drawing.Cost("IA", 0.51, 54)]}
    picture = drawing.svg(drawing.draw_scores_over_costs(points, "mAP"))
    return [
        *(
            page.Section(name, f"Table {name}", "A caption. " * 20, [panel], "A note.")
            for name in ("1", "2", "3")
        ),
        page.Section(
            "cost", "Cost", "Of networks.", [costs], "A note.", picture, "mAP & costs", "Of <all>."
        ),
    ]


def trained_runs() -> list[run_list.TrainedRun]:
    """Two seeds of a network of a long name and one of another, and one by another recipe."""
    histories = {
        KEYS[0]: {"epoch": [1, 2], "loss": [4.0, 1.0], "accuracy": [0.25, 0.5]},
        KEYS[1]: {"epoch": [1, 2], "loss": [3.0, 2.0], "accuracy": [0.5, 0.75]},
        "synthetic.base.quick.0": {"epoch": [1], "loss": [2.0], "accuracy": [1.0]},
        "synthetic.base.strong.0": {"epoch": [1], "loss": [2.0], "accuracy": [1.0]},
    }
    runs = [(key.split("."), pd.DataFrame(history)) for key, history in histories.items()]
    return [
        run_list.TrainedRun(Run(dataset, network, recipe, int(seed)), history, {}, {})
        for (dataset, network, recipe, seed), history in runs
    ]


@cache
def report() -> str:
    """The page of all results, with figures."""
    curve = drawing.svg(drawing.draw_cmc_curve([0.5, 0.75], "base."))
    gain = drawing.Gain("Table 1: a network of a long name, " * 2, 0.5, -0.5, 1.5, False)
    gains = drawing.svg(drawing.draw_forest({("synthetic", "mAP"): [gain]}))
    picture = {
        "name": "f",
        "title": "Figure",
        "caption": "What it is.",
        "svg": curve,
        "has_cells": True,
    }
    items = "".join(
        f'<li class="wrong"><img alt="rank {rank}" src="data:,"><b>✗ {rank}</b> 0.512</li>'
        for rank in range(1, 21)
    )
    lists = f'<style>{LIST_STYLE}</style><ol class="ranks">{items}</ol>'
    ranks = {"name": "ranks", "title": "Ranked lists", "caption": "Lists.", "html": lists}
    files = {"configuration": f"../runs/{KEYS[0]}/training.json"}
    run = overview.RunRow(
        KEYS[0], "http://127.0.0.1:5000/#/experiments/1/runs/" + "0" * 32, [45.0, None], 3,
        [4.25, 2.0, 0.5], "0,1 60,15", 0.4, "2026-11-29 02:30", "abc1234", "AMD EPYC", files,
    )  # fmt: skip
    return page.to_html(
        "IANet, reproduced",
        sections(),
        overview={"Recipe quick": "backbone resnet18, weights none, " * 10},
        findings=Findings(["A finding & more."], ["Table 1: base., 53.1 % mAP"], gains),
        samples=[Samples("synthetic", [(PIXEL, "person 7, camera 1"), (PIXEL, "person 7 & 8")])],
        figures=[picture],
        ranks=[ranks],
        searches=[
            {
                "name": "s",
                "title": "A search",
                "caption": "Of s.",
                "svg": curve,
                "result": "6 trials.",
            }
        ],
        curves=curves.draw_curves(trained_runs()),
        runs=[
            *overview.build_failed_rows({FAILED: "OSError: <b>no</b> space & no file"}),
            run,
            run._replace(
                key=KEYS[1],
                url=None,
                minutes=10.0,
                label=", cameras ignored",
                losses=[4.0, 0.0625],
            ),
            run._replace(key=KEYS[2], url=None, minutes=9.0, losses=[], files={}),
        ],
    )
