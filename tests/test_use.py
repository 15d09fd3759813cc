"""The commands and the lines of docs/use.md and of README.md, in order, on synthetic people."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from documents import find_blocks, split_commands
from PIL import Image
from tiny_models import Outcome, runner, tiny_model

import ianet
from ianet.synthetic import archive

pytestmark = pytest.mark.slow  # seconds of each command

PAGE = (Path(__file__).parents[1] / "docs/use.md").read_text()


def commands(page: str) -> list[list[str]]:
    """The words of the commands of a page that no person ran."""
    blocks = [block for block in find_blocks(page, "sh") if not block.marks]
    return [words for block in blocks for words in split_commands(block.text)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reader's folder: a model, photos in a folder a person, a query and a checkpoint."""
    root = tmp_path_factory.mktemp("use")
    tiny_model(root / "models/synthetic.stage3.quick.0")
    copy, *_ = commands("docs/use.md")
    assert copy[0] == "cp"
    subprocess.run(copy, cwd=root, check=True)
    archive.write(
        root / "people.zip",
        train_identities=1,
        test_identities=20,
        distractors=0,
        junk=0,
        images_per_camera=2,
        processes=1,
    )
    with zipfile.ZipFile(root / "people.zip") as people:
        for name in people.namelist():
            path = PurePosixPath(name)
            if path.suffix == ".jpg" and "train" not in name:
                person, _, rest = path.stem.partition("_")
                target = root / "photos" / person / f"{rest}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                if len(list(target.parent.iterdir())) < 4:
                    target.write_bytes(people.read(name))
    pictures = sorted((root / "photos").rglob("*.jpg"))
    shutil.copy(pictures[len(pictures) // 2], root / "query.jpg")
    shutil.copy(pictures[-1], root / "other.jpg")
    state = torchvision.models.resnet50(num_classes=3).state_dict()
    names = {name: name.replace("fc.", "classifier.") for name in state}
    torch.save({names[name]: value for name, value in state.items()}, root / "checkpoint.pth")
    return root


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> Callable[..., Outcome]:
    monkeypatch.chdir(folder)
    return runner(monkeypatch, capsys)


def test_the_commands_answer_in_order(run: Callable[..., Outcome]) -> None:
    _, *others = commands("docs/use.md")
    assert 12 <= len(others) <= 20
    outputs = {}
    for command in others:
        assert command[0] == "ianet"
        outcome = run(*command[1:])
        assert outcome.code == 0, (command, outcome)
        outputs[" ".join(command)] = outcome.output
    pictures = sorted(path.as_posix() for path in Path("photos").rglob("*.jpg"))
    middle = pictures[len(pictures) // 2]
    _, nearest, second, *_ = outputs["ianet search model query.jpg photos -k 5"].splitlines()
    assert nearest.split() == ["query.jpg", "1", middle, "0.0000"]
    assert float(second.split()[2]) > 0
    answer = json.loads(outputs["ianet search model query.jpg photos.parquet -k 5 --json"])
    assert answer[0]["path"] == middle
    assert answer[0]["distance"] == pytest.approx(0, abs=1e-6)
    assert answer[1]["distance"] > 1e-4
    ranks = pd.read_csv("ranks.csv")
    assert len(ranks) == 3 * len(list(Path("photos").rglob("*.jpg")))
    assert Path("ranks.html").read_text().startswith("<!doctype html>")
    assert {"model.pt2", "model.onnx", "maps.png", "roc.png"} <= {
        path.name for path in Path().iterdir()
    }


def test_the_commands_of_the_readme_answer(
    run: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder is that of the page."""
    *first, (python, option, code) = commands("README.md")
    assert len(first) == 2
    assert (python, option) == ("python", "-c")
    for command in first:
        assert command[0] == "ianet"
        assert run(*command[1:]).code == 0, command
    exec(code, {})
    number = len(list(Path("photos").rglob("*.jpg")))
    assert capsys.readouterr().out == f"({number}, 1280)\n"


def test_the_lines_of_python_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the commands, which make the calibrated model and its export."""
    monkeypatch.chdir(folder)
    blocks = [block for block in find_blocks("docs/use.md", "python") if not block.marks]
    judge, exported, embed, insert = (block.text for block in blocks)
    values: dict[str, Any] = {"ianet": ianet}
    exec(judge, values)
    assert values["judgement"].distance > 0
    exec(embed, values)
    features = values["table"].features
    assert features.shape == (len(list(Path("photos").rglob("*.jpg"))), 1280)
    first = min(path for path in Path("photos").rglob("*.jpg"))
    with Image.open(first) as picture:
        values["pixels"] = np.asarray(picture.resize((32, 64), Image.Resampling.BILINEAR))[None]
    exec(exported, values)
    row = values["table"].paths.index(first.as_posix())
    for result in (values["features"], values["program"](torch.tensor(values["pixels"]))):
        np.testing.assert_allclose(result[0], features[row], rtol=1e-3, atol=1e-3)
    exec(insert, values)
    network = values["network"].eval()
    pixels = torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(pixels)
        for stage in (network.layer2, network.layer3):
            assert len(values["blocks"]) == 2 * len(list(stage[-1].parameters()))
            del stage[-1]
        torch.testing.assert_close(network(pixels), expected, rtol=0, atol=0)


def test_the_page_names_each_file_of_a_model(folder: Path) -> None:
    for path in (folder / "model").iterdir():
        assert f"`{path.name}`" in PAGE
