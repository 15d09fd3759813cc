"""Trainings of a tiny set in a copy of the project: starts from models, new files, held-out people.

The test starts real DVC, Ray and MLflow processes.
"""

from __future__ import annotations

import copy
import json
import re
import shutil

import mlflow
import pandas as pd
import torch
import yaml
from project import Project

BASE = "ours.base.quick.0"
WARM = "ours.mine.warm.0"


def test_new_files_and_data_are_a_block_a_data_set_a_row_a_table_and_a_start(
    untrained: Project,
) -> None:
    """Nothing that was there is edited, but for data in params.yaml. Held-out people are scored.

    One run starts from the model of the other. With a learning rate of almost 0 the weights stay
    those of the start, but for the head and the block.
    """
    block = (untrained.folder / "ianet/blocks/squeeze_excitation.py").read_text()
    (untrained.folder / "ianet/blocks/mine.py").write_text(block)
    reader = "from ianet.datasets.market1501 import read\n\n__all__ = ['read']\n"
    (untrained.folder / "ianet/datasets/ours.py").write_text(reader)
    shutil.copy(untrained.folder / "data/synthetic.zip", untrained.folder / "data/ours.zip")
    params = yaml.safe_load((untrained.folder / "params.yaml").read_text())
    params["at_hand"] = ["synthetic", "ours"]  # the page shows images of the first alone
    params["checkpoint_minutes"] = 5  # nothing is killed
    changes = {"reader": "ours", "source": "data/ours.zip", "networks": ["base", "mine"]}
    params["datasets"]["ours"] = {**params["datasets"]["synthetic"], **changes}
    params["datasets"]["ours"]["recipes"] = {"plain": "quick", "warm": "warm"}
    del params["datasets"]["ours"]["synthetic"]  # a source of our own
    params["networks"]["mine"] = {"block": "mine", "after": {"stage3": {}}}
    params["recipes"]["quick"]["hold_out"] = True
    warm = copy.deepcopy(params["recipes"]["quick"])
    warm["network"]["weights"] = f"models/{BASE}"
    warm["training"] |= {"lr": 1e-9, "epochs": 1, "warm_up": 0}
    params["recipes"]["warm"] = warm
    (untrained.folder / "params.yaml").write_text(yaml.safe_dump(params))
    rows = [{"label": "our row", "network": "mine", "recipe": "warm"}]
    sheet = {"kind": "table", "title": "Ours", "caption": "", "metrics": ["mAP"], "rows": rows}
    (untrained.folder / "experiments/table9.yaml").write_text(yaml.safe_dump(sheet))
    output = untrained.run("python", "-m", "pipeline.repro", "table9")
    assert "2 runs, 2 of them to do" in output
    assert "done: results/tables/table9.html, results/report.html" in output
    text = (untrained.folder / "results/report.html").read_text()
    assert re.findall(r'<h2 id="(.+?)">', text) == ["findings", "images", "table9", "runs", "made"]
    assert set(re.findall(r'<tr id="(.+?)">', text)) == {BASE, WARM}
    cells = pd.read_csv(untrained.folder / "results/tables/table9.csv")
    assert cells[["label", "dataset", "metric"]].values.tolist() == [["our row", "ours", "mAP"]]
    assert 0 < cells.ours[0] <= 100
    run = json.loads((untrained.folder / "runs" / WARM / "network.json").read_text())
    assert run["options"]["block"] == "mine"
    assert run["identities"] == 6 - 2
    scores = json.loads((untrained.folder / f"results/ours/scores/{WARM}.json").read_text())
    table = pd.read_parquet(untrained.folder / "data/prepared/ours/table.parquet")
    assert scores["split"] == "held-out"
    assert scores["queries"] == (table.held_out == "query").sum()
    model = json.loads((untrained.folder / "models" / WARM / "config.json").read_text())
    assert [each["dataset"] for each in model["scores"]] == ["ours, held-out"]
    untrained.tracked()
    best = mlflow.MlflowClient().get_model_version_by_alias("ours.mine", "best")
    assert str(best.version) == "1"
    start = untrained.weights(BASE)
    trained = untrained.weights(WARM)
    backbone = [name for name in start if name.startswith(("stem.", "stages."))]
    parameters = [name for name in backbone if "running" not in name and "batches" not in name]
    assert len(parameters) > 50
    for name in parameters:
        assert torch.allclose(trained[name], start[name], rtol=0, atol=1e-6), name
    # Another start trains the run again, and nothing else does.
    assert untrained.repro("table9") == []
    shutil.copy(
        untrained.folder / f"models/{WARM}/model.safetensors",
        untrained.folder / f"models/{BASE}/model.safetensors",
    )
    stale = json.loads(untrained.run("dvc", "status", "--with-deps", "--json", "table9"))
    assert set(stale) == {f"model@{BASE}", f"train@{WARM}"}
