"""The page of all results: what its text says, and of which files and runs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from page_samples import FAILED, KEYS, PIXEL, report, trained_runs

from ianet import drawing
from pipeline.plan.dvc_yaml import build_pipeline
from pipeline.plan.plan import load_plan
from pipeline.plan.runs import Evaluation, Run
from pipeline.report import cells, curves, overview, page, run_list
from pipeline.stages import report as stage
from pipeline.tracking import reproduction


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
