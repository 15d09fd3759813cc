"""The model that MLflow serves, and the stage that writes a model from a run."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import noise
from small import RECORD
from tiny_models import SIZE, tiny_model, tiny_network

import ianet
from ianet.comparison import estimate_mean
from ianet.network import save
from pipeline.config.settings import load
from pipeline.plan.runs import Evaluation, parse_run
from pipeline.served import Features
from pipeline.stages import model as stage
from pipeline.tracking.training import MODEL_PACKAGES

ROOT = Path(__file__).parents[1]
KEY = "synthetic.base.quick.0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_photos_become_the_features_that_a_model_embeds(folder: Path) -> None:
    photos = [noise(seed, 50 + seed, 40) for seed in range(3)]
    features = Features(str(folder)).predict(pd.DataFrame({"image": photos}))
    assert features.dtype == np.float32
    expected = ianet.load(folder).embed(photos).features
    np.testing.assert_allclose(features, expected, atol=1e-6)
    assert not np.allclose(features[0], features[1], atol=1e-3)


def test_mlflow_installs_what_a_model_imports() -> None:
    """The modules of `ianet` that a new process has after `import ianet.model`."""
    code = (
        "import sys, ianet.model\n"
        "names = [name for name in sys.modules if name.split('.')[0] == 'ianet']\n"
        "print(*(sys.modules[name].__file__ for name in names))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = set()
    for path in found.stdout.split():
        for node in ast.parse(Path(path).read_text()).body:
            if isinstance(node, ast.Import):
                packages |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                packages.add(str(node.module).split(".")[0])
    packages -= {*sys.stdlib_module_names, "ianet"}
    assert {"PIL", "torch", "scipy"} <= packages
    assert {"pillow" if name == "PIL" else name for name in packages} <= set(MODEL_PACKAGES)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"photo": [b""]}), "columns are photo: give one column, image"),
        (pd.DataFrame({"image": [b"", "a.jpg"]}), "row 1 of image is of type str: give the bytes"),
        (pd.DataFrame({"image": [b"no picture"]}), "cannot be decoded"),
    ],
)
def test_what_is_no_photo_is_refused_in_a_line(
    folder: Path, table: pd.DataFrame, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as info:
        Features(str(folder)).predict(table)
    assert "\n" not in str(info.value)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a run that was trained and scored, by hand; nothing is sent."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text((ROOT / "params.yaml").read_text())
    run = parse_run(KEY, load())
    evaluation = Evaluation(run, run.dataset)
    for path in (run.folder, evaluation.scores.parent, evaluation.queries.parent):
        path.mkdir(parents=True)
    save(tiny_network(), run.folder, dataset=run.dataset, height=SIZE[0], width=SIZE[1])
    (run.folder / "training.json").write_text(json.dumps(RECORD))
    queries = pd.DataFrame(
        {"person": [1, 1, 2, 2, 3], "top-1": [0, 1, 1, 1, 1.0], "mAP": [0.2, 0.4, 0.5, 0.6, 0.8]}
    )
    queries["mINP"] = queries["mAP"] / 2
    queries.to_parquet(evaluation.queries)
    means = queries.drop(columns="person").mean().to_dict()
    evaluation.scores.write_text(json.dumps({**means, "split": "test", "torch": "2"}))
    monkeypatch.setattr(stage, "send_run", lambda run: None)
    monkeypatch.setattr(sys, "argv", ["model", KEY])
    return tmp_path


def test_a_run_becomes_a_model_with_its_scores(project: Path) -> None:
    stage.main()
    model = ianet.load(project / "models" / KEY)
    assert model.description.name == KEY
    assert model.description.commit == "abc1234"
    assert "No person is shown" in model.description.terms
    [scores] = model.description.scores
    assert (scores.dataset, scores.queries, scores.identities) == ("synthetic", 5, 3)
    assert scores.top_1.value == pytest.approx(0.8)
    assert scores.mAP is not None
    assert scores.mINP is not None
    values = pd.DataFrame({0: [0.2, 0.4, 0.5, 0.6, 0.8]})
    low, high = estimate_mean(values, [1, 1, 2, 2, 3]).interval()
    assert (scores.mAP.value, scores.mAP.low, scores.mAP.high) == pytest.approx(
        (0.5, max(low, 0), min(high, 1))
    )
    weights = (project / "runs" / KEY / "weights.safetensors").read_bytes()
    assert (project / "models" / KEY / "model.safetensors").read_bytes() == weights
    stage.main()  # again, in its place


def test_a_run_without_scores_becomes_no_model(
    project: Path, capsys: pytest.CaptureFixture[Any]
) -> None:
    run = parse_run(KEY, load())
    Evaluation(run, run.dataset).queries.unlink()
    with pytest.raises(FileNotFoundError, match=rf"`dvc repro evaluate@{re.escape(KEY)}` makes"):
        stage.main()
    assert not (project / "models").exists()
