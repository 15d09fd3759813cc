"""Exported files give the features of the model, for each block and in each size of batch."""

from __future__ import annotations

import importlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_models import SIZE, Outcome, tiny_model
from torch import nn

import ianet
from ianet import export
from ianet.export import Speed, embed_exported, open_exported, to_onnx, trace
from ianet.feature_table import concatenate
from ianet.model import Model
from ianet.pictures import find_pictures
from ianet.synthetic import archive

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("ia", {}),
    ("ia", {"relation": "location"}),
    ("cbam", {"reduction": 2}),
]
"""Of blocks that differ most for an export, which is fast here."""
ALL_OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("ia", {"arrangement": "sia-cia", "scale": "rsqrt_channels"}),
    ("ia", {"arrangement": "cia-sia", "fusion": "max", "normalization": "renormalized"}),
    ("ia", {"arrangement": "parallel", "fusion": "sum", "contexts": (2, 4)}),
    ("ia", {"arrangement": "cia", "channel_scale": "rsqrt_channels"}),
    ("ia", {"arrangement": "sia", "relation": "appearance", "contexts": (13,)}),
    ("ia", {"arrangement": "sia", "relation": "location"}),
    ("ia", {"arrangement": "sia", "relation": "uniform"}),
    ("non_local", {"similarity": "embedded_gaussian"}),
    ("non_local", {"similarity": "gaussian"}),
    ("non_local", {"similarity": "dot_product"}),
    ("sca_cnn", {"order": "channel-spatial", "common_space": 3}),
    ("sca_cnn", {"order": "spatial-channel", "common_space": 3}),
    ("squeeze_excitation", {"reduction": 2}),
    ("cbam", {"reduction": 2}),
    ("graph_convolution", {}),
]
"""Every value of every option once."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return ianet.load(tiny_model(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("people") / "people.zip"
    archive.write(
        target,
        train_identities=2,
        test_identities=4,
        distractors=0,
        junk=0,
        height=64,
        width=32,
        processes=1,
    )
    return target


def block(name: str, options: dict[str, Any]) -> nn.Module:
    """A block that is not the identity, in evaluation mode."""
    torch.manual_seed(0)
    module: nn.Module = importlib.import_module(f"ianet.blocks.{name}").Block(8, **options)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1)
            nn.init.uniform_(norm.running_var, 0.5, 1)  # type: ignore[arg-type]
    return module.eval()


def maps(batch: int) -> torch.Tensor:
    return torch.randn(batch, 8, 6, 4, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize(("name", "options"), OPTIONS)
@torch.no_grad()
def test_a_block_is_traced_for_each_size_of_batch(name: str, options: dict[str, Any]) -> None:
    module = block(name, options)
    program = trace(module, maps(2)).module()
    for batch in (1, 5):
        assert not torch.equal(module(maps(batch)), maps(batch))
        torch.testing.assert_close(program(maps(batch)), module(maps(batch)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), ALL_OPTIONS)
@torch.no_grad()
def test_each_option_of_each_block_is_the_same_in_onnx(name: str, options: dict[str, Any]) -> None:
    module = block(name, options)
    content = to_onnx(trace(module, maps(2)), {})
    session = onnxruntime.InferenceSession(content)
    for batch in (1, 3):
        [output] = session.run(None, {export.INPUT: maps(batch).numpy()})
        np.testing.assert_allclose(output, module(maps(batch)), rtol=1e-4, atol=1e-5)


class Undecided(nn.Module):
    """A block whose operations depend on values."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features if features.sum() > 0 else -features


def test_a_block_that_cannot_be_traced_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^the network cannot be exported \(.*\): t") as raised:
        trace(Undecided(), maps(2))
    assert "\n" not in str(raised.value)


def pixels(batch: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(batch).integers(0, 256, (batch, *SIZE, 3), dtype=np.uint8)


@pytest.mark.slow
def test_a_pt2_file_gives_the_features_of_the_model(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    model.embed(pixels(1), device="cpu")  # whose inference mode must not matter
    export.export(model, path, "pt2")
    run_file = open_exported(path)
    for batch in (1, 3):
        features = model.embed(pixels(batch), device="cpu").features
        np.testing.assert_allclose(run_file(pixels(batch)), features, atol=1e-5)
    with zipfile.ZipFile(path) as file:
        [name] = [name for name in file.namelist() if name.endswith(export.METADATA)]
        assert json.loads(file.read(name)) == export.describe(model)
    assert [each.name for each in tmp_path.iterdir()] == ["model.pt2"]


def test_the_description_says_what_a_user_must_do(model: Model) -> None:
    description = export.describe(model)
    assert description["digest"] == f"sha256:{model.identity.digest}"
    assert description["input"] == (
        "images: (batch, 64, 32, 3) uint8, RGB, resized to height 64 and width 32 (bilinear, "
        "antialiased)"
    )
    assert description["output"] == "features: (batch, 1280) float32"
    assert description["distance"] == "cosine"


@pytest.mark.slow
def test_an_onnx_file_is_checked_against_the_model(
    model: Model,
    people: Path,
    tmp_path: Path,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, path = tiny_model(tmp_path / "tiny"), tmp_path / "model.onnx"
    words = ("export", folder, "-o", path, "--check", people, "--option", "published=false")
    outcome = run(*words, "--json")
    assert outcome.code == 0
    answer = json.loads(outcome.output)
    assert answer["difference"] <= 1e-4
    original, copy = answer["check"]
    assert (original["name"], copy["name"]) == ("model", "model.onnx")
    assert original["scores"] == pytest.approx(copy["scores"], abs=1e-6)
    scores = json.loads(
        run("evaluate", folder, people, "--option", "published=false", "--json").output
    )["scores"]
    assert original["scores"]["mAP"] == pytest.approx(scores["mAP"]["value"], abs=1e-6)
    for row in answer["check"]:
        assert [speed["batch"] for speed in row["speed"]] == [1, 8, 32]
        for speed in row["speed"]:
            assert speed["images_per_s"] == pytest.approx(speed["batch"] / speed["latency_s"])

    proto = onnx.load(path)
    assert {entry.key: entry.value for entry in proto.metadata_props} == export.describe(model)
    [source], [result] = proto.graph.input, proto.graph.output
    assert (source.name, result.name) == ("images", "features")
    shape = [axis.dim_param or axis.dim_value for axis in source.type.tensor_type.shape.dim]
    assert shape == ["batch", *SIZE, 3]
    assert source.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    run_file = open_exported(path)
    for batch in (1, 3):
        features = model.embed(pixels(batch), device="cpu").features
        np.testing.assert_allclose(run_file(pixels(batch)), features, atol=1e-4)

    monkeypatch.setattr(export, "LARGEST_DIFFERENCE", -1.0)
    monkeypatch.setattr(export, "export", lambda *_: None)  # the file is there
    outcome = run(*words)
    assert outcome.code == 1
    assert "too much: -1 at most" in outcome.errors
    assert "mAP %" in outcome.output


def test_features_of_a_file_are_those_of_each_picture(
    model: Model, people: Path, tmp_path: Path
) -> None:
    pictures = find_pictures(people)[:5]
    table = concatenate(embed_exported(export.open_model(model), model, pictures, 2))
    expected = model.embed([picture.open() for picture in pictures], device="cpu")
    np.testing.assert_allclose(table.features, expected.features, atol=1e-5)
    assert table.paths == [picture.path for picture in pictures]
    assert export.find_difference(table, table) == 0
    expected.features[3, 7] += 1
    assert export.find_difference(table, expected) == pytest.approx(1, abs=1e-5)


def test_a_speed_is_the_median_of_repeats(
    model: Model, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(range(1000))
    monkeypatch.setattr(export.time, "perf_counter", lambda: next(times) ** 2)
    sizes: list[int] = []

    def run_file(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sizes.append(len(images))
        return images

    monkeypatch.setattr(export, "REPEATS", 3)
    speeds = export.measure(run_file, model, find_pictures(people)[:2], [1, 8])
    # From 0 to 1, 4 to 9, 16 to 25: 1, 5 and 9 seconds; then from 36 to 49, 64 to 81, 100 to 121.
    assert speeds == [Speed(1, 5), Speed(8, 17)]
    assert sizes == 4 * [1] + 4 * [8]
    assert speeds[1].images_per_second == 8 / 17


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "model.pt2"], "model.pt2 is to be onnx: name it model.onnx"),
        (["--format", "pt2", "-o", "model"], "model is to be pt2: name it model.pt2"),
        (["-o", "model.onnx", "--check", "nowhere"], "nowhere does not exist"),
        (
            ["--format", "pt2", "-o", "tiny/config.json/a.pt2"],
            "tiny/config.json/a.pt2 cannot be wr",
        ),
        (["--format", "tflite", "-o", "m.tflite"], "Invalid value for '--format'"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    message: str,
    run: Callable[..., Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path / "tiny")
    outcome = run("export", "tiny", *words)
    assert (outcome.code, outcome.output) == (2, "")
    assert outcome.errors.startswith(f"error: {message}")
    assert outcome.errors.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["tiny"]


def test_a_missing_package_is_one_line(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    outcome = run("export", "nowhere", "-o", "model.onnx")
    assert outcome.code == 2
    assert (
        outcome.errors == "error: ONNX needs onnxscript: pip install onnx onnxscript onnxruntime\n"
    )
