"""`ianet attention`: the maps are those of the block, on a picture as the network sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import SIZE, Outcome, tiny_model

import ianet
from ianet.attention import find_stages
from ianet.images import normalize
from ianet.model import save_model
from ianet.network import Network, describe
from ianet.options import NetworkOptions
from ianet.synthetic.portrait import portrait


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels, _ = portrait(
        6, facing=0.5, stride=0.4, phase=1.57, stature=0.92, camera=1, height=100, width=60, seed=0
    )
    Image.fromarray(pixels).save(tmp_path / "anna.png")
    return tmp_path / "anna.png"


def test_the_maps_are_those_of_the_block(
    run: Callable[..., Outcome], tmp_path: Path, photo: Path
) -> None:
    folder, picture = tiny_model(tmp_path / "model"), tmp_path / "maps.svg"
    words = ("attention", folder, photo, "--point", "0.5,0.1", "--point", "0.9,0.9", "-o", picture)
    outcome = run(*words, "--json")
    assert (outcome.code, outcome.errors) == (0, "")
    assert picture.read_text().startswith("<?xml")
    answer = json.loads(outcome.output)
    assert answer["stage"] == "stage2"

    network = ianet.load(folder).network.double()
    height, width = SIZE
    with Image.open(photo) as opened:
        resized = opened.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.asarray(resized).copy())[None]
    with torch.no_grad():
        maps = dict(network.intermediates(normalize(pixels).double()))
        place = [name for name in maps if name.startswith("stages.stage2")][-1]
        block = network.get_submodule(place.replace("stages", "blocks"))
        relation = block.sia.relation(maps[place])[0]
    rows, columns = maps[place].shape[2:]
    fields = answer["fields"]
    assert [field["relation"] for field in fields] == 2 * ["as trained"] + 2 * [
        "scaled, renormalised"
    ]
    for field, (x, y) in zip(fields[:2], [(0.5, 0.1), (0.9, 0.9)], strict=True):
        assert field["point"] == [x, y]
        expected = relation[int(y * rows) * columns + int(x * columns)].view(rows, columns)
        np.testing.assert_allclose(field["weights"], expected, rtol=1e-9)
    for field in fields:
        assert np.sum(field["weights"]) == pytest.approx(1)

    image = tmp_path / "maps.png"
    assert run(*words[:-1], image, "--channel", "5").output == f"{image}: 2 points after stage2\n"
    assert image.read_bytes().startswith(b"\x89PNG")
    outcome = run(*words[:5], "-o", image)
    assert outcome.output == f"{image}: 1 point after stage2\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--point", "0.5"], "--point 0.5: write it as X,Y, such as 0.5,0.1"),
        (["--point", "left,0.1"], "--point left,0.1: write it as X,Y"),
        (["--point", "12,40"], "--point 12,40 is not in the picture: give shares"),
        (["--point", "1,0"], "--point 1,0 is not in the picture"),
        (["--point", "0,0", "--stage", "stage3"], "no IA block stands after stage3"),
        (["--point", "0,0", "--channel", "33"], "channel 33 is out of range: stage2 has 32"),
        (["--point", "0,0", "-o", "maps.jpg"], "maps.jpg is to be a picture: name it .png or .svg"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, run: Callable[..., Outcome], tmp_path: Path, photo: Path
) -> None:
    folder = tiny_model(tmp_path / "model")
    outcome = run("attention", folder, photo, "-o", tmp_path / "maps.png", *words)
    assert outcome.code == 2
    assert outcome.errors.startswith(f"error: {message}")
    assert outcome.errors.count("\n") == 1
    assert not (tmp_path / "maps.png").exists()


def test_a_picture_that_is_none_is_named(
    run: Callable[..., Outcome], tmp_path: Path, photo: Path
) -> None:
    folder = tiny_model(tmp_path / "model")
    photo.write_bytes(b"no picture")
    outcome = run("attention", folder, photo, "--point", "0,0", "-o", tmp_path / "maps.png")
    assert outcome.code == 2
    assert f"{photo} cannot be decoded" in outcome.errors


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({"after": {"stage3": {}, "stage2": {}}}, ["stage2", "stage3"]),
        ({"after": {"stage2": {"arrangement": "cia"}, "stage3": {}}}, ["stage3"]),
        ({"after": {"stage2": {}}, "block": "non_local"}, []),
        ({}, []),
    ],
)
def test_stages_with_sia_are_found(options: dict[str, object], stages: list[str]) -> None:
    network = Network(2, NetworkOptions(backbone="resnet18", **options))  # type: ignore[arg-type]
    assert find_stages(network) == stages


def test_a_network_without_sia_is_one_line(
    run: Callable[..., Outcome], tmp_path: Path, photo: Path
) -> None:
    network = Network(2, NetworkOptions(backbone="mobilenet_v2"))
    description = describe(network, dataset="synthetic", height=64, width=32)
    save_model(network, description, tmp_path / "model", name="plain", terms="Free.")
    outcome = run("attention", tmp_path / "model", photo, "--point", "0,0", "-o", "maps.png")
    assert (outcome.code, outcome.errors) == (
        2,
        "error: plain has no block with SIA, so there is no relation to show\n",
    )
