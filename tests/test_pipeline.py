"""The whole pipeline on a tiny set, in a copy of the project: what runs again after which edit,
and what survives a kill.

Each test of this file starts real DVC, Ray and MLflow processes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import shutil
import signal
import urllib.error
import urllib.request
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image
from project import EPOCHS, Project, kill_all, same, wait_for
from servers import answers, free_port

import ianet
from ianet.features import extract
from ianet.images import load as load_images
from ianet.network import load as load_network

KEY = "synthetic.stage3.quick.0"
BASE = "synthetic.base.quick.0"
MODEL = "models:/synthetic.stage3@quick-0"  # in MLflow


@pytest.fixture(scope="module")
def project(prepared: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """After one `dvc repro`."""
    project = prepared.copy(tmp_path_factory.mktemp("reproduced") / "project")
    project.repro()
    shutil.copytree(project.folder / "runs", project.folder / "first")
    return project


def test_results_of_a_run(project: Project) -> None:
    run = project.folder / "runs" / KEY
    history = pd.read_csv(run / "history.csv")
    assert history.epoch.tolist() == list(range(1, EPOCHS + 1))
    assert history.lr.iloc[-1] == pytest.approx(0, abs=1e-12)  # cosine
    assert load_network(run).options.after == {"stage3": {"sigma": [5, 10]}}
    scores = json.loads((project.folder / f"results/synthetic/scores/{KEY}.json").read_text())
    assert scores["split"] == "test"
    assert 0 < scores["mAP"] <= 1
    assert scores["cmc"][0] == scores["top-1"] <= scores["top-5"] <= scores["cmc"][-1]
    table = pd.read_parquet(project.folder / "data/prepared/synthetic/table.parquet")
    assert scores["queries"] == (table.split == "query").sum()
    cost = pd.read_csv(project.folder / "results/tables/cost.csv")  # by the same recipe
    assert cost.multiply_adds.item() == round(scores["multiply_adds"] / 1e9, 4)


def test_table_holds_the_scores_and_the_papers_numbers(project: Project) -> None:
    tables = project.folder / "results" / "tables"
    cells = pd.read_csv(tables / "table4f.csv").set_index(["label", "dataset", "metric"])
    scores = json.loads((project.folder / f"results/synthetic/scores/{KEY}.json").read_text())
    ours = cells.loc[("stage 3", "synthetic", "mAP")]
    assert ours.ours == pytest.approx(100 * scores["mAP"], abs=0.01)
    assert cells.loc[("stage 3", "market1501", "mAP")].paper == 82.8
    assert pd.isna(cells.loc[("stage 2", "synthetic", "top-1")].ours)  # was not run: a dash
    assert "| stage 2 " in (tables / "table4f.md").read_text()
    assert "<td>82.8</td>" in (tables / "table4f.html").read_text()


def test_mlflow_holds_the_run(project: Project) -> None:
    runs = project.tracked().set_index("tags.run")
    assert set(runs.index) == {BASE, KEY, "reproduction"}
    assert runs.loc[KEY, "tags.table.table4f"] == "stage 3"
    run = runs.loc[KEY]
    assert run.status == "FINISHED"
    assert run["params.training.batch"] == "16"
    assert run["tags.network"] == "stage3"
    scores = json.loads((project.folder / f"results/synthetic/scores/{KEY}.json").read_text())
    assert run["metrics.test_mAP"] == pytest.approx(scores["mAP"])
    client = mlflow.MlflowClient()
    history = pd.read_csv(project.folder / "runs" / KEY / "history.csv")
    logged = client.get_metric_history(run.run_id, "loss")
    assert [metric.value for metric in logged] == pytest.approx(history.loss.tolist())
    assert client.get_metric_history(run.run_id, "images_per_second")
    assert "cmc.png" in [entry.path for entry in client.list_artifacts(run.run_id)]
    inputs = client.get_run(run.run_id).inputs.dataset_inputs
    assert [entry.dataset.name for entry in inputs] == ["synthetic"]
    assert any(name.startswith("metrics.system/") for name in runs.columns)


def test_the_pages_of_mlflow_are_served_on_this_machine_alone(project: Project) -> None:
    port = free_port()
    process = project.start("python", "-m", "pipeline.ui", "--port", str(port))
    try:
        wait_for(lambda: answers(port), "MLflow's pages", 120)
        assert project.listens_on() == {"127.0.0.1"}
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert f"http://127.0.0.1:{port}/#/experiments/1/runs?viewStateShareKey=ianet" in output
    assert "Traceback" not in output


def test_the_model_loads_from_mlflow_and_from_its_folder(project: Project) -> None:
    """Both give the features that the pipeline scored: photos of the size stay as they are."""
    pixels = load_images(project.folder / "data/prepared/synthetic/64x32.npy")[:4]
    network = load_network(project.folder / "runs" / KEY)
    expected = extract(network, pixels, device=torch.device("cpu")).numpy()
    photos = [encode(image) for image in pixels.numpy()]
    tracked = project.tracked().set_index("tags.run").loc[KEY]
    served = mlflow.pyfunc.load_model(MODEL)
    np.testing.assert_allclose(served.predict(pd.DataFrame({"image": photos})), expected, atol=1e-6)
    model = ianet.load(project.folder / "models" / KEY)
    np.testing.assert_allclose(model.embed(photos).features, expected, atol=1e-6)
    [scores] = model.description.scores
    assert scores.mAP is not None
    assert scores.mAP.value == pytest.approx(tracked["metrics.test_mAP"], abs=1e-6)
    client = mlflow.MlflowClient()
    assert "## Privacy" in str(client.get_model_version("synthetic.stage3", "1").description)
    # The alias of the run; test chooses no best.
    assert client.get_registered_model("synthetic.stage3").aliases == {"quick-0": 1}


def test_mlflow_serves_the_model(project: Project) -> None:
    """Photos over HTTP, good and bad; the features are those of the model's folder."""
    pixels = load_images(project.folder / "data/prepared/synthetic/64x32.npy")[:2].numpy()
    photos = [encode(image) for image in pixels]
    port = free_port()
    serve = ("mlflow", "models", "serve", "--model-uri", MODEL)
    options = ("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port))
    uri = f"sqlite:///{project.folder}/mlflow.db"
    process = project.start(*serve, *options, MLFLOW_TRACKING_URI=uri)
    try:
        wait_for(lambda: answers(port), "the server", 120)

        def ask(*values: str) -> tuple[int, Any]:
            content = {"dataframe_split": {"columns": ["image"], "data": [[v] for v in values]}}
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations",
                json.dumps(content).encode(),
                {"Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        status, answer = ask(*(base64.b64encode(photo).decode() for photo in photos))
        expected = ianet.load(project.folder / "models" / KEY).embed(photos).features
        assert status == 200
        np.testing.assert_allclose(answer["predictions"], expected, atol=1e-6)
        status, text = ask(base64.b64encode(b"no picture").decode())
        assert status == 400
        assert "cannot be decoded" in text
    finally:
        kill_all(process)
        process.communicate()


def encode(image: np.ndarray) -> bytes:
    """A picture as PNG."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()


def test_figures_cost_and_the_page_of_all(project: Project) -> None:
    results = project.folder / "results"
    for name in ("figure7", "figure8"):
        assert (results / "figures" / f"{name}.svg").read_text().startswith("<?xml")
    [cost] = pd.read_csv(results / "tables" / "cost.csv").to_dict("records")
    assert cost["multiply_adds"] > 0
    blocks = pd.read_csv(results / "tables" / "blocks.csv")
    assert blocks.block.tolist() == ["stage3.1.sia", "stage3.1.cia"]
    assert (blocks[["residual_ratio", "scale"]] > 0).all(axis=None)  # training has moved them
    history = pd.read_csv(project.folder / "runs" / KEY / "history.csv")
    assert (history["blocks.stage3.1.sia.scale"] > 0).all()
    ranks = (results / "ranks" / "ranks.html").read_text()
    # A query that IA mends or spoils has three neighbours by each network, and its scores.
    assert ranks.count("<h4") >= 1
    assert ranks.count("<li") == ranks.count("<h4") * 2 * (1 + 3)
    queries = [
        pd.read_parquet(results / f"synthetic/queries/synthetic.{name}.quick.0.parquet").mAP
        for name in ("base", "stage3")
    ]
    change = queries[1] - queries[0]
    query = change.idxmax() if change.max() > 0 else change.idxmin()
    for name, scores in zip(("base", "stage3"), queries, strict=True):
        assert f"{name}: average precision {100 * scores[query]:.1f} %" in ranks
    page = (results / "report.html").read_text()
    assert ranks in page
    for text in ("Table 4f", "Figure 7", "Figure 8", "Cost", KEY, "82.8"):
        assert text in page
    listed = pd.read_csv(results / "runs.csv").set_index("key").loc[KEY]
    scores = json.loads((results / f"synthetic/scores/{KEY}.json").read_text())
    weights = (project.folder / "runs" / KEY / "weights.safetensors").read_bytes()
    assert listed["mAP"] == scores["mAP"]
    assert listed["sha256"] == hashlib.sha256(weights).hexdigest()
    assert (listed["dataset"], listed["network"], listed["epochs"]) == ("synthetic", "stage3", 3)
    run_id = project.tracked().set_index("tags.run").loc[KEY].run_id
    assert f"http://127.0.0.1:5000/#/experiments/1/runs/{run_id}" in page
    reproduction = project.tracked().set_index("tags.run").loc["reproduction"].run_id
    client = mlflow.MlflowClient()
    logged = {entry.path for entry in client.list_artifacts(reproduction, "results")}
    assert {"results/tables", "results/figures"} <= logged
    assert client.get_registered_model("synthetic.stage3").latest_versions


def test_a_caption_rewrites_the_table_only(project: Project) -> None:
    project.edit("experiments/table4f.yaml", "Bottleneck vs. inside", "Bottleneck against inside")
    assert project.repro() == ["plan", "table4f", "report"]
    assert "against inside" in (project.folder / "results/tables/table4f.md").read_text()


def test_the_metrics_code_only_evaluates_again(project: Project) -> None:
    project.edit("ianet/retrieval.py", "class Scores(NamedTuple):", "EDITED = 1\n\n\nclass Scores(NamedTuple):")  # fmt: skip  # noqa: E501
    # The scores and the ranked lists come out as they were, so the table and the page stay.
    assert project.repro() == [
        "sources",
        "evaluate@synthetic.base.quick.0",
        f"evaluate@{KEY}",
        "ranks",
    ]


def test_a_stale_dvc_yaml_is_told(project: Project) -> None:
    project.edit("params.yaml", "networks:\n    - base\n    - stage3", "networks:\n    - base")
    output = project.run("dvc", "repro", expect=255)
    assert "dvc.yaml is older than params.yaml or experiments/: run `python -m" in output
    project.edit("params.yaml", "networks:\n    - base", "networks:\n    - base\n    - stage3")
    assert project.repro() == []


def test_a_networks_options_train_its_own_runs_only(project: Project) -> None:
    before, base = project.weights(KEY), project.weights(BASE)
    project.edit("params.yaml", "  stage3:\n    block: ia\n    after:\n      stage3:\n        sigma:\n        - 5\n        - 10", "  stage3:\n    block: ia\n    after:\n      stage3:\n        sigma:\n        - 2\n        - 4")  # fmt: skip  # noqa: E501
    ran = project.repro(f"train@{BASE}", f"train@{KEY}")
    assert [stage for stage in ran if "@" in stage] == [f"train@{KEY}"]
    assert not same(project.weights(KEY), before)
    assert same(project.weights(BASE), base)
    models = (f"model@{BASE}", f"model@{KEY}")
    stale = json.loads(project.run("dvc", "status", "--with-deps", "--json", *models))
    assert {stage for stage in stale if "@" in stage} == {f"evaluate@{KEY}", f"model@{KEY}"}


def test_a_killed_worker_and_a_killed_driver_end_with_the_same_weights(
    project: Project, untrained: Project
) -> None:
    command = ("python", "-m", "pipeline.stages.train", KEY)
    reference = project.weights(KEY, folder="first")

    def worker() -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline", "environ"]):
            is_ours = (process.info["environ"] or {}).get("PYTHONPATH") == str(untrained.folder)
            if is_ours and "ray::_compute" in " ".join(process.info["cmdline"] or []):
                return process
        return None

    process = untrained.start(*command)
    wait_for(lambda: untrained.epochs(KEY) >= 1, "the first epoch")
    wait_for(worker, "the worker").kill()
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert same(untrained.weights(KEY), reference)
    history = pd.read_csv(untrained.folder / "runs" / KEY / "history.csv")
    assert history.epoch.tolist() == list(range(1, EPOCHS + 1))
    shutil.rmtree(untrained.folder / "runs")

    process = untrained.start(*command)
    wait_for(lambda: untrained.epochs(KEY) >= 1, "the first epoch")
    process.kill()
    process.communicate(timeout=60)
    assert not (untrained.folder / "runs" / KEY).exists()
    untrained.run(*command)
    assert same(untrained.weights(KEY), reference)
    tracked = untrained.tracked().set_index("tags.run").loc[[KEY]]
    assert len(tracked) == 2  # trained twice, and each epoch recorded once
    client = mlflow.MlflowClient()
    for run in tracked.run_id:
        steps = [one.step for one in client.get_metric_history(run, "loss")]
        assert steps == list(range(1, EPOCHS + 1))
    assert not list((untrained.folder / "build" / "trainings").glob(f"{KEY}.*"))
