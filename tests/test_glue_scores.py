"""The scores of the pipeline against a slow count from the pictures of a folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from small import RECORD
from test_glue import (
    BOXES,
    DATASET,
    DEVIATION,
    MEAN,
    SIZE,
    Source,
    decode,
    market1501,
    prepare_and_pack,
    resize,
    run,
    shots,
    write_images,
)

from ianet.features import extract
from ianet.network import Network
from ianet.options import NetworkOptions
from pipeline import scoring
from pipeline.config.settings import load
from pipeline.plan.runs import Evaluation, Run
from pipeline.report import ranked_lists
from pipeline.scoring import score
from pipeline.stages import evaluate


class Corner(Network):
    """Its features are pixels, which noise makes differ within a person."""

    def __init__(self) -> None:
        super().__init__(1, NetworkOptions("resnet18"))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, :4, :3].flatten(1)


class Sample(NamedTuple):
    """An image of the test set, decoded here.

    Attributes:
        row: in the prepared table.
        vector: its feature, of length 1.
    """

    row: int
    person: int
    camera: int
    vector: NDArray[np.float64]


def read_samples(root: Path, split: str, first: int) -> list[Sample]:
    """The images of a folder of Market-1501, without junk; `first` is the row of the first."""
    samples: list[Sample] = []
    for path in sorted((root / BOXES[split]).iterdir()):
        person, camera = path.name.split("_")[:2]
        if person == "-1":
            continue
        samples.append(Sample(first + len(samples), int(person), int(camera[1]), corner(path)))
    return samples


def corner(path: Path) -> NDArray[np.float64]:
    """The feature of a picture by `Corner`, of length 1."""
    pixels = (resize(decode(path.read_bytes())) / 255 - MEAN) / DEVIATION
    vector = pixels[:4, :3].ravel()
    return vector / np.linalg.norm(vector)


def ranking(query: Sample, gallery: list[Sample]) -> list[Sample]:
    """The gallery by its cosine, without the query's person on the query's camera."""
    others = [
        image for image in gallery if (image.person, image.camera) != (query.person, query.camera)
    ]
    return sorted(others, key=lambda image: -float(query.vector @ image.vector))


def count_images(query: Sample, gallery: list[Sample]) -> dict[str, float]:
    """The person of a query, and of how many images which are matches."""
    ranks = ranking(query, gallery)
    matches = sum(image.person == query.person for image in ranks)
    return {"person": query.person, "matches": matches, "candidates": len(ranks)}


def count_ranking(query: Sample, gallery: list[Sample]) -> dict[str, float]:
    """Scores of Market-1501's protocol."""
    ranks = [
        rank
        for rank, image in enumerate(ranking(query, gallery), 1)
        if image.person == query.person
    ]
    precision = fmean(match / rank for match, rank in enumerate(ranks, 1))
    tops = {f"top-{n}": float(ranks[0] <= n) for n in (1, 5, 10)}
    return {**tops, "mAP": precision, "mINP": len(ranks) / ranks[-1]}


def count_draws(query: Sample, gallery: list[Sample]) -> dict[str, float]:
    """Scores of the classic protocol: the mean over every gallery that may be drawn."""
    place = {image.row: rank for rank, image in enumerate(ranking(query, gallery))}
    people: dict[int, list[int]] = {}
    for image in gallery:
        if image.row in place:
            people.setdefault(image.person, []).append(place[image.row])
    ranks_of_person = people.pop(query.person)
    ranks = [
        1 + sum(other < first for other in others)
        for first, *others in itertools.product(ranks_of_person, *people.values())
    ]
    return {f"top-{n}": fmean(rank <= n for rank in ranks) for n in (1, 5, 10)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("protocol", "count"), [("ranking", count_ranking), ("single_shot", count_draws)]
)
def test_scores_are_a_slow_count(
    protocol: str,
    count: Callable[[Sample, list[Sample]], dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each query under its row, and the means, from the pictures of the folder."""
    source = market1501(tmp_path / "set", noise=90)
    prepared = prepare_and_pack(source, monkeypatch)
    description = json.loads((prepared / "dataset.json").read_text())
    (prepared / "dataset.json").write_text(json.dumps({**description, "scoring": protocol}))
    trained = Run(DATASET, "base", "tiny", 0)
    trained.folder.mkdir(parents=True)
    (trained.folder / "weights.safetensors").write_bytes(b"")
    (trained.folder / "training.json").write_text(json.dumps(RECORD))
    monkeypatch.setattr(scoring, "load_network", lambda folder: Corner())
    monkeypatch.setattr(scoring, "extract", partial(extract, batch=3))
    monkeypatch.setattr(evaluate, "send_run", lambda run: None)
    run(evaluate, trained.key, monkeypatch)

    queries = read_samples(source.path, "query", sum(shot.split == "train" for shot in shots()))
    gallery = read_samples(source.path, "gallery", queries[-1].row + 1)
    expected = pd.DataFrame(
        [{**count_images(query, gallery), **count(query, gallery)} for query in queries],
        [query.row for query in queries],
        dtype=float,
    )
    files = Evaluation(trained, DATASET)
    each = pd.read_parquet(files.queries)
    assert set(each.columns) == set(expected.columns)
    pd.testing.assert_frame_equal(each[expected.columns].astype(float), expected, atol=1e-6)
    means = json.loads(files.scores.read_text())
    for name in ("top-1", "top-5", "top-10", "mAP", "mINP"):
        mean = expected[name].mean() if name in expected else None
        assert means[name] == (None if mean is None else pytest.approx(mean, abs=1e-6))
    assert [means["cmc"][n - 1] for n in (1, 5, 10)] == [means[f"top-{n}"] for n in (1, 5, 10)]
    assert means["queries"] == len(queries)
    assert means["cameras"] == "respect"
    assert means["without_match"] == 0
    assert 0.05 < means["top-1"] < 0.95  # neither is a perfect score


def test_a_query_is_no_match_of_itself_where_cameras_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `persons` each picture is a query, and in the gallery."""
    tested = [shot for shot in shots() if shot.split != "train"]
    names = {f"{shot.person}/{shot.number}.jpg": (shot, shot.person, 0) for shot in tested}
    root = tmp_path / "set"
    pictures = write_images(root, names, noise=90)
    prepared = prepare_and_pack(
        Source(root, "persons", {}, pictures, cameras="ignore"), monkeypatch
    )
    table = pd.read_parquet(prepared / "table.parquet")
    # For the slow count each picture has a camera of its own. Persons are numbered by their names.
    samples = [
        Sample(number, int(path.split("/")[0]) // 3, number, corner(root / path))
        for number, path in enumerate(sorted(names))
    ]
    expected = [{**count_images(each, samples), **count_ranking(each, samples)} for each in samples]
    scores = score(Corner().eval(), prepared, SIZE, table.split, torch.device("cpu"))
    frame = pd.concat([scores.queries, scores.means], axis=1).assign(
        **{f"top-{n}": scores.cmc[n] for n in (1, 5, 10)}
    )
    assert table.path[frame.index].tolist() == sorted(names)
    columns = list(expected[0])
    pd.testing.assert_frame_equal(
        frame[columns].astype(float).reset_index(drop=True),
        pd.DataFrame(expected, dtype=float)[columns],
        atol=1e-6,
    )
    assert 0.05 < scores.summary()["top-1"] < 0.95
    assert scores.cameras == "ignore"

    trained = Run(DATASET, "base", "tiny", 0)
    images = ranked_lists.read_images(trained, load())
    paths = images.queries.path.to_numpy()[:, None] == images.gallery.path.to_numpy()
    assert np.array_equal(images.candidates, ~paths)
