"""The folder of a model: what it says, its forms, and damage of every kind."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import archive_folder
from safetensors.torch import load_file, save_file
from tiny_models import TERMS, Outcome, tiny_model, tiny_network, write_photos

import ianet
from ianet.comparison import Interval
from ianet.model import Model, save_model, write_model
from ianet.model_description import ModelScores
from ianet.network import Network, describe, save
from ianet.options import NetworkOptions

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return ianet.load(folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("data") / "photos")


def test_the_folder_says_what_a_user_needs(folder: Path, model: Model) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["input"] | {"mean": None, "deviation": None} == {
        "height": 64,
        "width": 32,
        "channels": "RGB",
        "resize": "bilinear, antialiased",
        "scale": [0.0, 1.0],
        "mean": None,
        "deviation": None,
    }
    assert config["features"] == {"size": 1280, "distance": "cosine", "normalized": False}
    assert (config["name"], config["dataset"], config["terms"]) == ("tiny", "synthetic", TERMS)
    assert (config["scores"], config["commit"], config["calibration"]) == ([], "", None)
    card = (folder / "README.md").read_text()
    assert f"> {TERMS}" in card
    assert f"sha256:{model.identity.digest}" in card
    assert "to 64x32 (height x width), bilinear, antialiased" in card
    assert "No score is known." in card


def test_scores_are_kept_and_written_on_the_card(tmp_path: Path) -> None:
    network = tiny_network()
    scores = ModelScores(
        "market1501", 3368, 750, Interval(0.944, 0.936, 0.951), Interval(0.83, 0.82, 0.84), None
    )
    description = describe(network, dataset="market1501", height=64, width=32)
    target = tmp_path / "model"
    save_model(
        network,
        description,
        target,
        name="m",
        terms="Research only.",
        scores=(scores,),
        commit="1a2b",
    )
    loaded = ianet.load(target).description
    assert loaded.scores == (scores,)
    assert loaded.commit == "1a2b"
    card = (target / "README.md").read_text()
    assert "| market1501 | 94.4 (93.6 to 95.1) | 83.0 (82.0 to 84.0) | – | 750 | 3,368 |" in card
    assert "| commit | 1a2b |" in card
    with pytest.raises(FileExistsError, match="model exists: name another folder"):
        save_model(network, description, target, name="m", terms="")
    with pytest.raises(ValueError, match="name is 'a b': give a name without spaces"):
        save_model(network, description, tmp_path / "other", name="a b", terms="")
    assert not (tmp_path / "other").exists()


def test_scores_for_which_cameras_were_ignored_are_named_so(tmp_path: Path) -> None:
    network, score = tiny_network(), Interval(0.9, 0.8, 1)
    scores = (
        ModelScores("photos", 3, 2, score, None, None, "ignore"),
        ModelScores("hall", 3, 2, score, None, None, "respect"),
    )
    description = describe(network, dataset="photos", height=64, width=32)
    target = tmp_path / "model"
    save_model(network, description, target, name="m", terms="", scores=scores)
    assert ianet.load(target).description.scores == scores
    card = (target / "README.md").read_text()
    assert "| photos, cameras ignored | 90.0 (80.0 to 100.0) | – | – | 2 | 3 |\n" in card
    assert "| hall | 90.0 (80.0 to 100.0) | – | – | 2 | 3 |\n" in card

    config = json.loads((target / "config.json").read_text())
    assert [each.pop("cameras") for each in config["scores"]] == ["ignore", "respect"]
    edit(scores=config["scores"])(target)  # as in folders of before
    assert [each.cameras for each in ianet.load(target).description.scores] == 2 * ["respect"]
    edit(scores=[config["scores"][0] | {"cameras": "both"}])(target)
    with pytest.raises(
        ValueError, match=r"config\.json: cameras is 'both': choose one of respect,"
    ):
        ianet.load(target)


def test_the_card_shows_texts_as_they_are(tmp_path: Path) -> None:
    evil = '<script>alert("a")</script> [b](http://c) `f` | *d*\n\n# Other\n[e]: http://g'
    text = r'\<script\>alert("a")\</script\> [b]\(http://c) \`f\` \| \*d\* \# Other [e]\: http://g'
    score = Interval(0.9, 0.8, 1)
    description = describe(tiny_network(), dataset=evil, height=64, width=32)
    target = tmp_path / "model"
    save_model(
        tiny_network(),
        description,
        target,
        name="<b>_name_</b>",
        terms=evil,
        scores=(ModelScores(evil, 3, 2, score, None, None),),
        commit="`a|b`",
    )
    card = (target / "README.md").read_text()
    assert card.startswith("# \\<b\\>\\_name\\_\\</b\\>\n")
    assert f"Trained on {text}, 5 people. Its terms:\n\n> {text}\n\n" in card
    assert f"| {text} | 90.0 (80.0 to 100.0) | – | – | 2 | 3 |\n" in card
    assert "| commit | \\`a\\|b\\` |" in card
    assert ianet.load(target).description.terms == evil


def test_a_score_lies_within_its_interval_and_within_0_and_1() -> None:
    with pytest.raises(ValueError, match=r"0\.5 is not between 0\.6 and 0\.7"):
        Interval(0.5, 0.6, 0.7)
    with pytest.raises(ValueError, match=r"a score of 0\.9 to 1\.1: it must lie in 0 to 1"):
        ModelScores("market1501", 5, 2, Interval(1, 0.9, 1.1), None, None)


def test_the_name_and_the_scores_leave_the_digest(model: Model, tmp_path: Path) -> None:
    description = replace(model.description, name="other", commit="abc")
    write_model(model.network, description, tmp_path / "copy")
    copy = ianet.load(tmp_path / "copy")
    assert copy.identity == ("other", model.identity.digest)
    assert len(model.identity.digest) == 64
    other = ianet.load(tiny_model(tmp_path / "seed", seed=1))
    assert other.identity.digest != model.identity.digest


def test_files_have_the_modes_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        folder = tiny_model(tmp_path / "model")
        save(tiny_network(), tmp_path, dataset="own", height=64, width=32)
    finally:
        os.umask(before)
    files = [*folder.iterdir(), tmp_path / "weights.safetensors"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


def test_a_zip_and_a_tar_are_loaded_as_the_folder(
    folder: Path, model: Model, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    features = model.embed(photos / "b").features
    for kind in ("zip", "tar.gz"):
        loaded = ianet.load(archive_folder(tmp_path / "tiny", kind))
        assert loaded.identity == model.identity
        assert np.array_equal(loaded.embed(photos / "b").features, features)


Change = Callable[[Path], object]


def edit(**values: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def edit_options(**values: Any) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edit(options=config["options"] | values)(folder)

    return change


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def rewrite(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return rewrite


def edit_input(**values: int) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edit(input=config["input"] | values)(folder)

    return change


VARIANCE = "stem.0.1.running_var"


def bias_of(state: dict[str, torch.Tensor], kind: torch.dtype) -> dict[str, torch.Tensor]:
    return {"classifier.bias": state["classifier.bias"].to(kind)}


def link_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("nowhere")


def cut(name: str) -> Change:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "config.json").unlink(),
            "holds no config.json but README.md, mo",
        ),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors. Exp"),
        (cut("config.json"), r"config.json is damaged \(.+\): fetch or make the model again"),
        (cut("model.safetensors"), r"model.safetensors is damaged \(.+\): fetch or make the mo"),
        (edit(crop=1), "config.json: crop unknown: the file is of a newer version of ianet"),
        (edit(scores=[{"dataset": 1}]), "config.json: queries, identities, .* missing: .* older"),
        (
            edit(identities=10**13),
            "the file has fewer numbers than a classifier of 10,000,000,000,000 identities",
        ),
        (
            edit_options(weights="imagenet"),
            "config.json: options.weights is 'imagenet': a trained network needs none",
        ),
        (edit(identities=2**70), "the file has fewer numbers than a classifier of 1,180,591,620"),
        (
            edit_input(height=10**9),
            "config.json: height is 1000000000: it must be 1 pixel at least",
        ),
        (edit_input(height=10**5, width=10**5), "height is 100000: .* and 8192 at most$"),
        (edit_input(width=2**63), "config.json: width is 9223372036854775808: it must be 1 pixel"),
        (
            lambda folder: (folder / "config.json").write_text("[" * 10**5 + "]" * 10**5),
            r"config.json is damaged \(maximum recursion depth .*\): fetch or make the model again",
        ),
        (
            edit_options(block="sca_cnn", options={"common_space": 10**13}),
            r"config.json asks for a network that cannot be built \(.+\): fetch or make the model",
        ),
        (edit(identities=7), r"model.safetensors does not fit config.json: 2 tensors are missing"),
        (
            edit_weights(lambda state: state["classifier.bias"].fill_(torch.nan)),
            "model.safetensors holds NaN or infinite values in 1 of .* tensors, .* classifier.bias",
        ),
        (
            edit_weights(lambda state: state[VARIANCE][1:2].fill_(-0.5)),
            rf"model.safetensors holds negative variances in 1 of \d+ tensors, .* {VARIANCE}: f",
        ),
        *(
            (
                edit_weights(lambda state, kind=kind: state.update(bias_of(state, kind))),
                "holds other values than dense floating-point numbers in 1 of .* classifier.bias:",
            )
            for kind in (torch.int8, torch.bool, torch.complex64)
        ),
        (
            link_config,
            r"model/config.json is damaged \(.*No such file.*\): fetch or make the model",
        ),
        (
            lambda folder: os.truncate(folder / "config.json", 2**20 + 1),
            "config.json has 1,048,577 bytes, and such a file has 1,048,576 at most",
        ),
        (
            lambda folder: os.truncate(folder / "model.safetensors", 2**40),
            "model.safetensors has 1,099,511,627,776 bytes, and such a file has 1,073,741,824",
        ),
        (
            lambda folder: shutil.copytree(folder, folder / "copy"),
            r"holds a config.json in \. and copy: name one folder",
        ),
    ],
)
def test_what_is_no_model_is_one_line(
    folder: Path, tmp_path: Path, change: Change, message: str
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    change(copy)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        ianet.load(copy)
    assert str(copy) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_zip_that_points_outside_is_refused(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.zip"
    with zipfile.ZipFile(target, "w") as archive:
        archive.write(folder / "config.json", "../config.json")
    with pytest.raises(ValueError, match=r"names \.\./config\.json, which points outside"):
        ianet.load(target)
    target.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"model\.zip is damaged or not a zip"):
        ianet.load(target)
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path}/none does not exist. Ex")):
        ianet.load(tmp_path / "none")


def test_a_run_is_no_model(tmp_path: Path) -> None:
    save(tiny_network(), tmp_path, dataset="own", height=64, width=32)
    with pytest.raises(ValueError, match=r"is a trained run and no model: .* in models/$"):
        ianet.load(tmp_path)


def test_a_damaged_zip_is_found(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "tiny")
    path = archive_folder(tmp_path / "tiny", "zip")
    content = bytearray(path.read_bytes())
    place = content.index(b"model.safetensors") + 5000
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged \(Bad CRC"):
        ianet.load(path)


def test_ianet_is_light_and_has_no_other_name_than_load() -> None:
    code = "import sys, ianet; assert 'torch' not in sys.modules; ianet.embed"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("AttributeError: module 'ianet' has no attribute 'embed'\n")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_right(
    folder: Path, model: Model, tmp_path: Path, kind: torch.dtype
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    edit_weights(lambda state: state.update(bias_of(state, kind)))(tmp_path / "model")
    bias = ianet.load(tmp_path / "model").network.classifier.bias
    assert bias.dtype == torch.float32
    assert torch.equal(bias, model.network.classifier.bias.to(kind).float())


@pytest.mark.parametrize("scale", [1e30, 3e38])
def test_features_that_cannot_be_compared_are_refused(
    photos: Path, tmp_path: Path, run: Callable[..., Outcome], scale: float
) -> None:
    """The weights are finite, and the features or their lengths are not."""
    network = Network(5, NetworkOptions(backbone="mobilenet_v2", neck=True))
    with torch.no_grad():
        network.neck.weight.fill_(scale)
    description = describe(network, dataset="synthetic", height=64, width=32)
    save_model(network, description, tmp_path / "model", name="tiny", terms=TERMS)
    picture = photos / "c/grey.png"
    message = (
        f"the features of {picture} are not finite or too large: the weights of the model tiny are "
        "damaged, so fetch or make the model again"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ianet.load(tmp_path / "model").embed([picture])
    output = tmp_path / "features.parquet"
    outcome = run("embed", tmp_path / "model", picture, "-o", output)
    assert outcome == (2, "", f"error: {message}\n")
    assert not output.exists()


def test_a_model_is_not_made_in_the_folder_of_another(
    folder: Path, model: Model, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "link").symlink_to("model")
    for place in ("model/sub", "model/a/b", "link/sub"):
        message = rf" is in the folder of a model, {re.escape(str(tmp_path))}/model, and would"
        with pytest.raises(ValueError, match=message):
            write_model(model.network, model.description, tmp_path / place)
    assert ianet.load(tmp_path / "model").identity == model.identity
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="dangling exists: name another folder, or move"):
        write_model(model.network, model.description, tmp_path / "dangling")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot be written, as .*/file is no folder: name ano"):
        write_model(model.network, model.description, tmp_path / "file/sub")
