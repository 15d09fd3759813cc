"""A small project of plain-colour people, by its own commands, against a few lines of arithmetic.

What is computed here takes the pictures as files, and of `ianet` the module alone that holds the
trained weights.
"""

from __future__ import annotations

import colorsys
import json
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from project import Project
from safetensors.torch import load_file

from ianet.network import Network
from ianet.options import NetworkOptions

pytestmark = pytest.mark.slow

KEY = "colours.base.colours.0"
HEIGHT, WIDTH = 32, 16
TRAINING, TEST = range(1, 8), range(8, 16)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def paint(person: int, draw: np.random.Generator) -> Image.Image:
    """The person's colour in a light of the moment, under noise.

    The light differs little in training, and so much in test that some people are confused.
    """
    shade = 255 * np.array(colorsys.hsv_to_rgb(person % 7 / 7 + person // 8 / 14, 0.75, 0.75))
    light = draw.normal(0, 4 if person in TRAINING else 20, 3)
    pixels = shade + light + draw.normal(0, 8, (40, 20, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_people(root: Path) -> None:
    """Market-1501's layout. No two training identities have the same number of images."""
    draw = np.random.default_rng(0)
    names = [
        f"bounding_box_train/{person:04d}_c{1 + n % 3}s1_{draw.integers(10**6):06d}_01.jpg"
        for person in TRAINING
        for n in range(6 + person)
    ]
    for person in TEST:
        for n in range(3 + person % 4):
            frame, camera = draw.integers(10**6), 1 + n % 3
            folder = "query" if n < 2 else "bounding_box_test"
            names.append(f"{folder}/{person:04d}_c{camera}s1_{frame:06d}_01.jpg")
        names.append(f"bounding_box_test/{person:04d}_c1s2_{draw.integers(10**6):06d}_01.jpg")
    for person in (0, 0, 0, -1, -1, -1):
        label = f"{person:04d}" if person == 0 else "-1"
        names.append(f"bounding_box_test/{label}_c2s1_{draw.integers(10**6):06d}_01.jpg")
    for name in names:
        person = int(name.split("/")[1].split("_")[0])
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        paint(person if person > 0 else draw.choice(TEST), draw).save(root / name, quality=95)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """After prepare, pack, train and evaluate."""
    project = Project.create(tmp_path_factory.mktemp("glue"))
    write_people(project.folder / "data/colours")
    params = yaml.safe_load((project.folder / "params.yaml").read_text())
    params["at_hand"] = ["colours"]
    params["checkpoint_minutes"] = 5  # after the last epoch alone
    params["datasets"]["colours"] = {
        **params["datasets"]["synthetic"],
        "synthetic": None,
        "source": "data/colours",
        "recipes": {"plain": "colours"},
        "networks": ["base"],
    }
    params["recipes"]["colours"] = {
        "network": {"backbone": "resnet18", "neck": True},
        "training": {
            **params["recipes"]["quick"]["training"],
            "height": HEIGHT,
            "width": WIDTH,
            "epochs": 8,
        },
    }
    (project.folder / "params.yaml").write_text(yaml.safe_dump(params))
    for stage, key in (
        ("prepare", "colours"),
        ("pack", f"colours.{HEIGHT}x{WIDTH}"),
        ("train", KEY),
        ("evaluate", KEY),
    ):
        project.run("python", "-m", f"pipeline.stages.{stage}", key)
    return project


class Picture(NamedTuple):
    person: int
    camera: int
    pixels: NDArray[np.float64]  # (3, H, W), as the network takes them


def read_pictures(folder: Path) -> list[Picture]:
    """Those of persons, in the order of their names."""
    pictures = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("-1"):
            continue
        image = Image.open(path).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        pixels = (np.asarray(image) / 255 - MEAN) / DEVIATION
        camera = int(path.name.split("_c")[1][0])
        pictures.append(Picture(int(path.name[:4]), camera, pixels.transpose(2, 0, 1)))
    return pictures


@torch.no_grad()
def features(network: Network, pictures: list[Picture]) -> torch.Tensor:
    """(N, D) float64."""
    return network(torch.from_numpy(np.stack([picture.pixels for picture in pictures])))


@pytest.fixture(scope="module")
def network(project: Project) -> Network:
    """With the trained weights, in evaluation mode and float64."""
    run = project.folder / "runs" / KEY
    description = json.loads((run / "network.json").read_text())
    network = Network(description["identities"], NetworkOptions(**description["options"]))
    network.load_state_dict(load_file(run / "weights.safetensors"))
    return network.double().eval()


def test_training_learns_the_identity_that_a_files_name_says(
    project: Project, network: Network
) -> None:
    """Identities are numbered in ascending order, and the classifier gives their numbers."""
    history = pd.read_csv(project.folder / "runs" / KEY / "history.csv")
    assert history.accuracy.iloc[-1] > 0.9
    pictures = read_pictures(project.folder / "data/colours/bounding_box_train")
    with torch.no_grad():
        answers = network.classifier(features(network, pictures)).argmax(1).tolist()
    labels = [picture.person - TRAINING[0] for picture in pictures]
    assert network.identities == len(TRAINING)
    assert np.mean(np.equal(answers, labels)) > 0.9


def test_scores_are_those_of_the_weights_and_the_pictures(
    project: Project, network: Network
) -> None:
    """Each query under its row, and the means, to 1e-6."""
    root = project.folder / "data/colours"
    queries, gallery = (read_pictures(root / name) for name in ("query", "bounding_box_test"))
    unit = torch.nn.functional.normalize
    cosines = unit(features(network, queries)) @ unit(features(network, gallery)).T
    rows = []
    for query, row in zip(queries, cosines.tolist(), strict=True):
        order = sorted(range(len(gallery)), key=lambda place: -row[place])
        matches = [
            gallery[place].person == query.person
            for place in order
            if (gallery[place].person, gallery[place].camera) != (query.person, query.camera)
        ]
        ranks = [rank for rank, match in enumerate(matches, 1) if match]
        rows.append(
            {
                **{f"top-{n}": float(ranks[0] <= n) for n in (1, 5, 10)},
                "mAP": fmean(match / rank for match, rank in enumerate(ranks, 1)),
                "mINP": len(ranks) / ranks[-1],
            }
        )
    first = sum(1 for _ in (root / "bounding_box_train").iterdir())
    expected = pd.DataFrame(rows, range(first, first + len(queries)))
    results = project.folder / "results/colours"
    each = pd.read_parquet(results / f"queries/{KEY}.parquet").astype(float)
    each = each.drop(columns=["person", "matches", "candidates"])
    pd.testing.assert_frame_equal(each, expected, atol=1e-6, check_like=True)
    means = json.loads((results / f"scores/{KEY}.json").read_text())
    assert {name: means[name] for name in expected} == pytest.approx(
        expected.mean().to_dict(), abs=1e-6
    )
    assert 0.5 < means["mAP"] < 0.95  # chance gives about 0.2, and is no perfect order
