"""The page of all results in a real browser, at a desktop's and a phone's width."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pandas as pd
import pytest
from browser import find_violations, needs_browser, open_page

from ianet import drawing
from ianet.ranks_page import LIST_STYLE
from pipeline.plan.dvc_yaml import build_pipeline
from pipeline.plan.plan import load_plan
from pipeline.plan.runs import Evaluation, Run
from pipeline.report import cells, curves, overview, page, run_list
from pipeline.report.findings import Findings
from pipeline.report.samples import Samples
from pipeline.stages import report as stage
from pipeline.tracking import reproduction

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


@needs_browser
@pytest.mark.parametrize(
    ("width", "scheme", "kind"),
    [
        *((1280, "light", "report"), (1280, "dark", "report"), (390, "light", "report")),
        *((390, "dark", "report"), (390, "light", "table")),
    ],
)
def test_a_browser_and_axe_find_nothing_wrong(
    width: int, scheme: Literal["dark", "light"], kind: str
) -> None:
    content = table_page() if kind == "table" else report()
    with open_page(content, width, scheme) as (tab, messages):
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        boxes = tab.locator(".wide, figure > div")
        is_marked = "box => (box.scrollWidth > box.clientWidth) == (box.tabIndex == 0)"
        assert all(boxes.evaluate_all(f"boxes => boxes.map({is_marked})"))
        tab.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert find_violations(tab) == []
        assert messages == []


@needs_browser
def test_without_scripts_the_page_has_the_same_text() -> None:
    texts = []
    for scripts in (True, False):
        with open_page(report(), scripts=scripts) as (tab, _):
            texts.append(tab.locator("main").inner_text())
    assert texts[0] == texts[1]
    assert KEYS[0] in texts[1]


@needs_browser
def test_on_paper_tables_are_whole_and_there_is_no_navigation() -> None:
    paper = 794  # pixels, of A4
    with open_page(report(), paper) as (tab, _):
        assert tab.locator("nav").is_visible()
        tab.emulate_media(media="print")
        assert not tab.locator("nav").is_visible()
        assert tab.evaluate("document.documentElement.scrollWidth") <= paper
        widths = tab.locator(".wide").evaluate_all(
            "boxes => boxes.map(box => [box.scrollWidth, box.clientWidth])"
        )
        assert widths
        assert all(inner <= outer for inner, outer in widths)


WIDTH = "element => element.getBoundingClientRect().width"
TOP = "element => element.getBoundingClientRect().top"
COLOURS = """svg => {
  const style = element => getComputedStyle(element);
  return [style(svg.querySelector("path")).fill, style(svg.querySelector("text")).fill,
    style(svg.querySelector('[style*="stroke: #000000"]')).stroke,
    style(document.body).backgroundColor, style(document.body).color];
}"""


@needs_browser
@pytest.mark.parametrize(
    ("scheme", "paper", "ink"),
    [
        ("light", "rgb(255, 255, 255)", "rgb(31, 35, 40)"),
        ("dark", "rgb(13, 17, 23)", "rgb(230, 237, 243)"),
    ],
)
def test_pictures_have_the_colours_of_the_page(
    scheme: Literal["dark", "light"], paper: str, ink: str
) -> None:
    """The ground, the texts and the ticks."""
    with open_page(report(), 390, scheme) as (tab, _):
        colours = tab.locator("figure svg").evaluate_all(f"all => all.map({COLOURS})")
        assert colours == [[paper, ink, ink, paper, ink]] * 8


@needs_browser
@pytest.mark.parametrize("width", [360, 390])
def test_all_gains_fit_a_phone_at_full_size(width: int) -> None:
    with open_page(report(), width) as (tab, _):
        box = tab.locator('figure[aria-label="All gains"] > div')
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
        assert box.get_attribute("tabindex") is None
        heights = box.locator("text").evaluate_all(
            "texts => texts.map(text => text.getBoundingClientRect().height)"
        )
        assert min(heights) >= 11


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_figure_zooms_and_the_head_of_the_runs_stays_in_sight(width: int) -> None:
    with open_page(report(), width) as (tab, messages):
        figure = tab.locator('figure[aria-label="Figure"]')
        box = figure.locator("div")
        figure.get_by_role("checkbox", name="Zoom in on Figure").check()
        natural = figure.locator("svg").evaluate("svg => svg.width.baseVal.value")
        assert figure.locator("svg").evaluate(WIDTH) == pytest.approx(2 * natural, abs=1)
        is_wide = box.evaluate("box => box.scrollWidth > box.clientWidth")
        assert box.get_attribute("tabindex") == ("0" if is_wide else None)  # for keys
        assert is_wide or width > 390
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        figure.get_by_role("checkbox").uncheck()
        assert figure.locator("svg").evaluate(WIDTH) <= natural
        runs = tab.locator("#runs-list")
        runs.evaluate("box => { box.style.maxHeight = '100px'; box.scrollTop = 1000; }")
        assert runs.evaluate("box => box.scrollTop") > 50
        title = tab.get_by_role("button", name="minutes").locator("..")
        assert title.evaluate(TOP) == runs.evaluate(TOP)
        assert messages == []


@needs_browser
def test_runs_are_filtered_and_sorted() -> None:
    with open_page(report()) as (tab, messages):
        rows = tab.locator("#run-table tbody tr")
        before = rows.evaluate_all("rows => rows.map(row => row.id)")
        assert before == [FAILED.key, *KEYS]
        tab.get_by_role("searchbox", name="Filter runs").fill("AMD quick.1")
        visible = rows.evaluate_all("rows => rows.filter(row => !row.hidden).map(row => row.id)")
        assert visible == [key for key in before if "quick.1" in key]
        tab.get_by_role("searchbox").fill("")
        title = tab.get_by_role("button", name="run", exact=True)
        for direction, order in (
            ("ascending", sorted(before)),
            ("descending", sorted(before)[::-1]),
        ):
            title.click()
            assert rows.evaluate_all("rows => rows.map(row => row.id)") == order
            assert tab.locator("#run-table th[aria-sort]").get_attribute("aria-sort") == direction
        tab.get_by_role("button", name="loss by epoch").click()  # 0.0625 has more digits than 0.5
        losses = rows.evaluate_all("rows => rows.map(row => row.cells[5].textContent.trim())")
        assert losses == ["–", "–", "0.0625", "0.5"]
        tab.get_by_role("button", name="minutes").click()  # as numbers: 0.4, 9 and 10
        order = [FAILED.key, *(KEYS[place] for place in (0, 2, 1))]
        assert rows.evaluate_all("rows => rows.map(row => row.id)") == order
        assert messages == []


def test_a_line_through_losses_has_the_largest_on_top() -> None:
    assert overview.draw_line([3.0, 1.0, 2.0]) == "0.0,1.0 30.0,15.0 60.0,8.0"
    assert overview.draw_line([2.0, 2.0]) == "0.0,1.0 60.0,1.0"
    assert overview.draw_line([2.0]) == "0.0,1.0"
    assert "training loss by epoch, from 4.25 to 0.5" in report()


def test_nothing_is_fetched() -> None:
    text = report()
    fetched = re.findall(r'src="([^"]*)"|<link[^>]*href="([^"]*)"', text)
    assert {source or link for source, link in fetched} == {"data:,", PIXEL}
    assert "@import" not in text
    assert "url(http" not in text


def test_a_run_links_to_mlflow_and_a_cell_to_its_runs() -> None:
    text = report()
    keys = [f"synthetic.a-network-of-a-long-name.quick.{seed}" for seed in range(3)]
    assert f'<a href="#{keys[0]}" title="{", ".join(keys)}">3</a>' in text
    page_of_run = "http://127.0.0.1:5000/#/experiments/1/runs/" + "0" * 32
    link = f'<a href="{page_of_run}">{keys[0]}</a>'
    assert f'<tr id="{keys[0]}"><th scope="row">{link}</th>' in text
    # Without a page in MLflow.
    assert f'<tr id="{keys[1]}"><th scope="row">{keys[1]}, cameras ignored</th>' in text


def read_rows(text: str) -> dict[str, list[str]]:
    """The cells of each run by the titles of the columns, as HTML."""
    [table] = re.findall(r'<table id="run-table">(.*?)</table>', text, re.S)
    titles = re.findall(r"<th scope[^>]*>(.*?)</th>", table[: table.index("</thead>")])
    rows = re.findall(r'<tr id="(.*?)">(.*?)</tr>', table, re.S)
    return {
        key: dict(zip(titles, re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S), strict=True))
        for key, row in rows
    }


def test_a_failed_run_is_first_with_its_reason() -> None:
    rows = read_rows(report())
    assert list(rows) == [FAILED.key, *KEYS]
    assert rows[FAILED.key] == {
        "run": FAILED.key,
        "status": '<b class="loss">failed</b> <span class="reason">OSError: &lt;b&gt;no&lt;/b&gt; '
        "space &amp; no file</span>",
        **dict.fromkeys(("top-1", "mAP", "epochs", "loss by epoch", "minutes"), "–"),
        **dict.fromkeys(("date (UTC)", "commit", "machine"), ""),
        "files": f'<a href="../build/logs/{FAILED.key}.log">log</a> ',
    }
    names = ("status", "top-1", "mAP", "epochs", "minutes", "date (UTC)", "commit", "machine")
    assert [rows[KEYS[0]][name] for name in names] == [
        "finished", "45.0", "–", "3", "0.4", "2026-11-29 02:30", "abc1234", "AMD EPYC",
    ]  # fmt: skip
    assert rows[KEYS[2]]["files"] == "made elsewhere"


def test_a_run_that_was_trained_has_its_numbers_even_if_its_last_attempt_failed() -> None:
    history = pd.DataFrame({"loss": [2.0, 1.0], "seconds": [30.0, 60.0]})
    record = {"date": "2026-11-29 02:30", "commit": "abc1234", "environment": {"device": "CPU"}}
    scores = {"top-1": 0.5, "mAP": None, "cameras": "ignore"}
    trained = run_list.TrainedRun(FAILED, history, record, scores)
    assert overview.build_run_row(trained, None, "RuntimeError") == overview.RunRow(
        FAILED.key, None, [50.0, None], 2, [2.0, 1.0], "0.0,1.0 60.0,15.0", 1.5,
        "2026-11-29 02:30", "abc1234", "CPU",
        {
            "configuration": f"../runs/{FAILED.key}/training.json",
            "history": f"../runs/{FAILED.key}/history.csv",
            "log": f"../build/logs/{FAILED.key}.log",
        },
        "RuntimeError", ", cameras ignored",
    )  # fmt: skip
    for content in ({**scores, "cameras": "respect"}, {}):
        assert overview.build_run_row(trained._replace(scores=content), None, "").label == ""


def test_a_run_of_another_checkout_has_the_numbers_of_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [Run("market1501", "base", "cpu", seed) for seed in (0, 1)]
    row = [runs[0].key, *runs[0], 20, 0.75, None, "ab", "0012345", "EPYC", 1.5]
    Path("results").mkdir()
    pd.DataFrame([row], columns=list(run_list.COLUMNS)).to_csv("results/runs.csv", index=False)
    foreign = [Evaluation(run, run.dataset) for run in runs]
    expected = overview.RunRow(
        runs[0].key, scores=[75.0, None], epochs=20, minutes=90.0, commit="0012345",
        machine="EPYC",
    )  # fmt: skip
    foreign[0].scores.parent.mkdir(parents=True)
    scores = {"top-1": 0.75, "mAP": None, "torch": "2"}
    foreign[0].scores.write_text(json.dumps(scores))
    assert overview.read_foreign_rows(foreign) == [expected]
    foreign[0].scores.write_text(json.dumps({**scores, "cameras": "ignore"}))
    assert overview.read_foreign_rows(foreign) == [expected._replace(label=", cameras ignored")]
    elsewhere = [Evaluation(runs[0], "dukemtmc")]  # its scores there are not those of the line
    assert overview.read_foreign_rows(elsewhere) == [expected]


def test_curves_are_those_of_a_data_set_and_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "svg", lambda figure: figure)
    quick, strong = curves.draw_curves(trained_runs())
    assert [each[:3] for each in (quick, strong)] == [
        ("synthetic", "quick", 3),
        ("synthetic", "strong", 1),
    ]
    values = {
        title: {
            axes.get_title(): [line.get_xydata().tolist() for line in axes.lines]
            for axes in figure.axes
        }
        for title, figure in quick.pictures.items()
    }
    name = "a-network-of-a-long-\nname"
    assert values == {
        "training loss": {name: [[[1, 4], [2, 1]], [[1, 3], [2, 2]]], "base": [[[1, 2]]]},
        "training accuracy (%)": {
            name: [[[1, 25], [2, 50]], [[1, 50], [2, 75]]],
            "base": [[[1, 100]]],
        },
    }
    for title, figure in quick.pictures.items():
        [legend] = figure.legends
        assert legend.get_title().get_text() == title
        assert [text.get_text() for text in legend.get_texts()] == ["seed 0", "seed 1"]
        first, second = figure.axes
        assert first.get_ylim() == second.get_ylim()
        assert len({line.get_linestyle() for line in first.lines}) == 2


def test_curves_take_few_bytes() -> None:
    [first, *_] = trained_runs()
    seeds = [
        first._replace(run=Run("synthetic", f"network-{number}", "quick", seed))
        for number in range(12)
        for seed in range(3)
    ]
    [group] = curves.draw_curves(seeds)
    assert sum(len(svg) for svg in group.pictures.values()) < 120_000


def test_a_figure_and_a_search_say_what_makes_them() -> None:
    """As tables do."""
    parts = re.findall(r'<h2 id="([\w-]+)">(.*?)(?=<h2|</main>)', report(), re.S)
    assert {
        name: re.findall(r'(?<=<code>)make [^<]*|(?<=href=")[^#"][^"]*', part)
        for name, part in parts
        if name in ("cost", "f", "ranks", "search-s")
    } == {
        "cost": [
            "make repro ONLY=cost", "../experiments/cost.yaml", "tables/cost.csv",
            "tables/cost.md", "tables/cost.tex",
        ],
        "f": [
            "make repro ONLY=f", "../experiments/f.yaml", "figures/f.svg", "tables/f.csv",
        ],
        "ranks": ["make repro ONLY=ranks", "../experiments/ranks.yaml"],
        "search-s": [
            "make search ONLY=s", "../experiments/search_s.yaml", "searches/s/trials.csv",
        ],
    }  # fmt: skip


def test_a_picture_and_images_have_names() -> None:
    text = report()
    assert text.count('aria-label="mAP &amp; costs"') == 2
    assert "<figcaption>Of &lt;all&gt;.</figcaption>" in text
    after_costs = text[text.index('<h2 id="cost">') :]
    assert "base. &amp; more</text>" in after_costs[: after_costs.index("<h2", 1)]
    assert re.findall(r'<img src="data:image[^"]*" alt="([^"]*)">', text) == [
        "person 7, camera 1",
        "person 7 &amp; 8",
    ]
    assert text.index('<h2 id="findings">') < text.index('<h2 id="images">')
    assert text.index('<h2 id="images">') < text.index('<h2 id="1">')


def test_findings_come_first_and_rows_without_a_number_are_folded_away() -> None:
    text = report()
    assert text.index("A finding &amp; more.") < text.index("A caption.")
    folded = re.findall(r"<details><summary>(.*?)</summary>.*?</details>", text, re.S)
    assert folded[:2] == [
        "The best of each table, which noise may explain",
        "synthetic: 1 row without a number of ours",
    ]
    parts = re.split(r"<details>.*?</details>", text, flags=re.S)
    assert not any("a rival" in part for part in parts)
    assert any("graph convolution" in part for part in parts)


def test_the_page_is_made_without_mlflow_and_sent_with_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SimpleNamespace(at_hand=())
    run = Run("synthetic", "base", "quick", 0)
    plan = SimpleNamespace(
        settings=settings,
        limit=lambda names: plan,
        evaluations=lambda: [Evaluation(run, run.dataset)],
        foreign_evaluations=list,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    monkeypatch.setattr(stage, "load_plan", lambda: plan)
    monkeypatch.setattr(stage, "find_complete", lambda plan: [])
    monkeypatch.setattr(stage, "is_complete", lambda evaluation: True)
    for name, value in {
        "find_row_labels": {run: {"table4f": "base."}},
        "build_score_sections": {}, "build_other_sections": [],
        "read_figures": [], "read_ranked_lists": [], "read_search_summaries": [],
        "summarize": {"Runs": "1"},
        "build_run_row": overview.RunRow(run.key),
    }.items():  # fmt: skip
        monkeypatch.setattr(overview, name, lambda *_, value=value: value)
    for name in ("list_runs", "write_list"):
        monkeypatch.setattr(run_list, name, lambda *_: None)
    monkeypatch.setattr(run_list, "find_failures", lambda *_: {FAILED: "broken", run: "late"})
    files = trained_runs()[-1]._replace(run=run)
    monkeypatch.setattr(run_list, "read_run", lambda *_: files)
    events: list[object] = []

    def refuse(*_: object) -> None:
        raise ConnectionError("MLflow at http://nowhere cannot be used")

    def send(labels: object) -> None:
        events.append((labels, run.key in Path("results/report.html").read_text()))

    monkeypatch.setattr(reproduction, "connect", refuse)
    stage.main()  # MLflow is away
    text_of_page = Path("results/report.html").read_text()
    rows = read_rows(text_of_page)
    assert list(rows) == [FAILED.key, run.key]
    assert "broken" in rows[FAILED.key]["status"]
    assert '<h2 id="images">' not in text_of_page
    Path("results/report.html").unlink()
    monkeypatch.setattr(stage, "sync_reproduction", send)
    stage.main()
    assert events == [({run: {"table4f": "base."}}, True)]
    assert Path("results/report.html").read_text() == text_of_page


def test_the_page_shows_the_tables_whose_files_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    plan = load_plan()
    stages = build_pipeline(plan)["stages"]
    monkeypatch.chdir(tmp_path)
    for name in ("table4d", "table4f", "cost"):
        paths = [next(iter(out)) for out in stages[name]["outs"]]
        for path in (*paths, *(dep for dep in stages[name]["deps"] if dep.startswith("results/"))):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).touch()
    assert sorted(stage.find_complete(plan)) == ["cost", "table4d", "table4f"]
    Path("results/tables/table4d.svg").unlink()
    assert sorted(stage.find_complete(plan)) == ["cost", "table4f"]
    [first, *_] = Path("results/synthetic/queries").glob("*.stage2.quick.2.parquet")
    first.unlink()
    assert stage.find_complete(plan) == ["cost"]
    assert list(plan.limit(["cost"]).experiments) == ["cost"]
    assert len(plan.experiments) > 10


def test_a_run_is_on_the_page_if_it_was_trained_and_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    evaluation = Evaluation(Run("synthetic", "base", "quick", 0), "synthetic")
    record = evaluation.run.folder / "training.json"
    for path in (record, evaluation.scores):
        assert not stage.is_complete(evaluation)
        path.parent.mkdir(parents=True)
        path.touch()
    assert stage.is_complete(evaluation)
    record.unlink()
    assert not stage.is_complete(evaluation)


def test_a_search_is_told_by_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    plan = load_plan()
    monkeypatch.chdir(tmp_path)
    assert overview.read_search_summaries(plan) == []
    folder = Path("results/searches/sigma")
    folder.mkdir(parents=True)
    trials = {
        "network.after.stage3.sigma.0": [5, 8, 12],
        "mAP": [0.25, 0.5, 0.625],
        "state": ["done", "done", "stopped early"],
    }
    pd.DataFrame(trials).to_csv(folder / "trials.csv")
    best = {"network.after.stage3.sigma.0": 8}
    scores = {"best": best, "test": {"mAP": 0.4375, "top-1": 1}}
    (folder / "scores.json").write_text(json.dumps(scores))
    assert overview.read_search_summaries(plan) == []
    (folder / "sensitivity.svg").write_text("<svg/>")
    [summary] = overview.read_search_summaries(plan)
    assert (summary.name, summary.svg) == ("sigma", "<svg/>")
    text = (
        "3 trials on synthetic. sigma_1=8, sigma_2=16 has the best mAP on held-out people, 50.0 %. "
        "A network with these values was trained on all people, and scored once on test: 43.8 %"
    )
    assert summary.result == f"{text}. One seed a trial is no finding."
    (folder / "scores.json").write_text(json.dumps({**scores, "cameras": "ignore"}))
    [summary] = overview.read_search_summaries(plan)
    assert summary.result == f"{text}, cameras ignored. One seed a trial is no finding."
    origin = {"date": "2026-12-01", "commit": "0123abc"}
    (folder / "scores.json").write_text(json.dumps(scores | origin))
    [summary] = overview.read_search_summaries(plan)
    assert summary.result.endswith("finding. The search is of 2026-12-01, commit 0123abc.")


def test_the_runs_are_described_by_data_and_recipe() -> None:
    runs = [Run("synthetic", "base", recipe, 0) for recipe in ("quick", "quick-strong", "quick")]
    foreign = [Run("market1501", "base", "cpu", 1)]
    assert overview.describe_runs(runs, foreign) == (
        "Trained and scored: 3 runs on synthetic by quick and quick-strong; 1 run on market1501 by "
        "cpu, in another checkout."
    )
    assert overview.describe_runs([], []) == "Trained and scored: nothing."


def test_looks_at_test_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluations = []
    for seed, split in enumerate(("test", "held-out", "test")):
        evaluation = Evaluation(Run("synthetic", "base", "quick", seed), "synthetic")
        evaluation.scores.parent.mkdir(parents=True, exist_ok=True)
        scores = {"top-1": 0.5, "mAP": 0.5, "torch": "2", "split": split}
        evaluation.scores.write_text(json.dumps(scores))
        evaluations.append(evaluation)
    Path("results/searches/sigma").mkdir(parents=True)
    Path("results/searches/sigma/trials.json").write_text("[]")
    text = overview.count_looks_at_test(evaluations)
    assert text == "by runs 2 of synthetic; 1 by searches, which score their best alone there"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("+0.3 [-0.1, +0.6]", "+0.3 [−0.1, +0.6]"),
        ("-1.5", "−1.5"),
        ("2026-11-29, stage-2, 1e-05, ia-2", "2026-11-29, stage-2, 1e-05, ia-2"),
    ],
)
def test_negative_numbers_have_a_minus_sign(text: str, sentence: str) -> None:
    assert page.use_minus(text) == sentence


def test_no_difference_is_minus_zero() -> None:
    assert [cells._format_signed(value) for value in (-0.04, 0.04, -0.06)] == [
        "+0.0",
        "+0.0",
        "-0.1",
    ]
