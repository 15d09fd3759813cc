"""Scores with intervals, and `ianet evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import noise
from test_single_shot import PLACES, WORKED
from tiny_models import SIZE, Outcome, tiny_model

import ianet
from ianet import images, retrieval
from ianet.comparison import bound_score
from ianet.datasets import market1501
from ianet.datasets.listing import Listing
from ianet.evaluation import embed_test, evaluate, list_test, pool_tracklets
from ianet.feature_table import FeatureTable, Identity
from ianet.features import extract
from ianet.packing import pack
from ianet.pictures import Picture
from ianet.reranking import KReciprocal
from ianet.synthetic import archive

MODEL = Identity("tiny", "ab")


def table(
    angles: Sequence[float], persons: Sequence[str], cameras: Sequence[str] = "", start: int = 0
) -> FeatureTable:
    """Features of a length of 2 at angles in degrees; a letter for each person and camera."""
    radians = np.deg2rad(angles)
    features = 2 * np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    paths = [f"{start + number}.jpg" for number in range(len(angles))]
    return FeatureTable(features, paths, list(persons), list(cameras) or [""] * len(angles), MODEL)


@pytest.mark.parametrize(("person", "camera"), [("mia", "1"), ("leo", "2")])
def test_a_picture_of_two_persons_or_cameras_is_refused(person: str, camera: str) -> None:
    """Else the later row would give its labels to both."""
    rows = [
        ("1.jpg", "leo", "1", "query"),
        ("2.jpg", "leo", "1", "gallery"),
        ("1.jpg", "leo", "1", "gallery"),
    ]
    columns = ["path", "person", "camera", "split"]
    listing = Listing(pd.DataFrame(rows, columns=columns), {}, Mock())
    query, gallery = list_test(listing, Path("people.csv"))
    assert [len(query), len(gallery)] == [1, 2]
    twice = Listing(
        pd.DataFrame([*rows, ("2.jpg", person, camera, "gallery")], columns=columns), {}, Mock()
    )
    message = rf"^people\.csv lists 2\.jpg as \(person, camera\) .*'{person}', '{camera}'.*: keep"
    with pytest.raises(ValueError, match=message):
        list_test(twice, Path("people.csv"))


def test_scores_worked_out_by_hand() -> None:
    query = table([0, 90, 180], "abx", "111")
    gallery = table([1, 2, 3, 91, 100, 20], "baabba", "222122", start=10)
    result = evaluate(query, gallery)
    # a: ranks b, a, a, a(20), so 1/2, 2/3, 3/4. b: camera 1 at 91 is left out; 100 first, then
    # 20 (a), 3, 2 and 1 last: 1/1, 2/5. Nobody in the gallery is x.
    assert result.scores["top-1"].value == 1 / 2
    assert result.scores["top-5"].value == 1
    assert result.scores["mAP"].value == pytest.approx(((1 / 2 + 2 / 3 + 3 / 4) / 3 + 0.7) / 2)
    assert result.scores["mINP"].value == pytest.approx((3 / 4 + 2 / 5) / 2)
    assert (result.queries, result.identities, result.without_match, result.gallery) == (2, 2, 1, 6)
    assert result.cmc.tolist() == [0.5] + [1] * 49
    # Of two people, both may be the one or the other.
    assert (result.scores["top-1"].low, result.scores["top-1"].high) == (0, 1)


def test_cameras_are_ignored_but_for_the_picture_itself() -> None:
    photos = table([0, 10, 90, 95, 200], "aabbc")
    with pytest.raises(ValueError, match=r"the camera of 5 of 5 pictures is unknown, the first of"):
        evaluate(photos, photos)
    result = evaluate(photos, photos, cameras="ignore")
    assert result.scores["mAP"].value == 1
    assert (result.queries, result.without_match) == (4, 1)
    same_camera = table([0, 10, 90, 95], "aabb", "1111")
    with pytest.raises(ValueError, match="every query would be left without a match"):
        evaluate(same_camera, same_camera)
    assert evaluate(same_camera, same_camera, cameras="ignore").queries == 4
    alone = table([0, 10], "ab")
    with pytest.raises(ValueError, match="none has another gallery image of its identity, from an"):
        evaluate(alone, alone, cameras="ignore")
    # The nearest pictures are of other people: only the picture itself is left out.
    mixed = table([0, 60, 10, 70], "aabb")
    result = evaluate(mixed, mixed, cameras="ignore")
    assert result.scores["top-1"].value == 0
    assert result.scores["mAP"].value == pytest.approx((1 / 2 + 1 / 3 + 1 / 3 + 1 / 2) / 4)


def test_unknown_persons_and_single_shot_reranking_are_refused() -> None:
    photos = table([0, 10], "aa", "12")
    with pytest.raises(ValueError, match=r"the person of 1 of 2 .* the first of them 1\.jpg: name"):
        evaluate(FeatureTable(photos.features, photos.paths, ["a", ""], ["1", "2"], MODEL), photos)
    with pytest.raises(ValueError, match="re-ranking is not defined for a single-shot protocol"):
        evaluate(photos, photos, scoring="single_shot", reranking=KReciprocal())


def test_single_shot_scores_worked_out_by_hand() -> None:
    """The case of tests/test_single_shot.py: a step on the line is an angle of 10 degrees."""
    texts = {
        name: [str(label) for label in WORKED[name]]
        for name in ("query_ids", "gallery_ids", "query_cameras", "gallery_cameras")
    }
    query = table([0], texts["query_ids"], texts["query_cameras"])
    angles = [10 * place for place in PLACES]
    gallery = table(angles, texts["gallery_ids"], texts["gallery_cameras"], start=1)
    result = evaluate(query, gallery, scoring="single_shot")
    assert list(result.scores) == ["top-1", "top-5", "top-10"]
    assert [score.value for score in result.scores.values()] == pytest.approx([1 / 4, 1, 1])
    assert result.cmc.tolist() == pytest.approx([1 / 4, 5 / 6] + [1] * 48)
    assert (result.queries, result.identities, result.without_match, result.gallery) == (1, 1, 0, 9)


def test_scores_are_those_of_retrieval_with_and_without_reranking() -> None:
    generator = np.random.default_rng(0)

    def people(count: int, start: int) -> FeatureTable:
        return FeatureTable(
            generator.standard_normal((count, 8)).astype(np.float32),
            [f"{start + row}.jpg" for row in range(count)],
            [str(code) for code in generator.integers(-1, 6, count)],
            [str(code) for code in generator.integers(0, 3, count)],
            MODEL,
        )

    query, gallery = people(20, 0), people(60, 100)
    for reranking in (None, KReciprocal(5, 2, 0.3)):
        result = evaluate(query, gallery, reranking=reranking)
        scores = retrieval.evaluate(
            query.features,
            gallery.features,
            *([int(person) for person in part.persons] for part in (query, gallery)),
            *([int(camera) for camera in part.cameras] for part in (query, gallery)),
            reranking=reranking,
        )
        assert result.scores["mAP"].value == pytest.approx(scores.mAP)
        assert result.scores["mINP"].value == pytest.approx(scores.mINP)
        assert np.allclose(result.cmc, scores.cmc)


def test_tracklets_are_pooled() -> None:
    paths = ["t1/1.jpg", "t2/1.jpg", "t1/2.jpg", "t1/3.jpg", "t1/4.jpg"]
    features = np.array([[3, 0], [0, 1], [0, 5], [2, 0], [1, 1]], np.float32)
    photos = FeatureTable(features, paths, list("aaaab"), list("11121"), MODEL)
    pooled = pool_tracklets(photos, {"a", "b"})
    assert pooled.paths == ["t1/1.jpg", "t2/1.jpg", "t1/3.jpg", "t1/4.jpg"]
    assert (pooled.persons, pooled.cameras) == (list("aaab"), list("1121"))
    expected = np.array([[0.5, 0.5], [0, 1], [1, 0], [2**-0.5, 2**-0.5]])
    assert np.abs(pooled.features - expected).max() < 1e-6
    assert evaluate(photos, photos, pool="mean").gallery == 4


def test_people_without_a_query_are_not_pooled() -> None:
    """Distractors are many people: their mean, at 60, would be nearer than a's picture at 65."""
    query = table([60], "a", "1")
    gallery = table([0, 120, 65, 75], "00aa", "2222", start=10)
    pooled = pool_tracklets(gallery, {"a"})
    assert pooled.paths == ["10.jpg", "11.jpg", "12.jpg"]
    assert np.abs(pooled.features[:2] - gallery.features[:2] / 2).max() < 1e-6
    result = evaluate(query, gallery, pool="mean")
    assert (result.gallery, result.scores["top-1"].value) == (3, 1)


def test_an_interval_is_wider_where_the_queries_of_a_person_are_alike() -> None:
    """Four queries of each of 50 people: as one, the interval is twice as wide."""
    values = np.random.default_rng(2).random(50)
    scores = pd.Series(values.repeat(4))
    alike = bound_score(scores, np.arange(50).repeat(4).tolist())
    apart = bound_score(scores, list(range(200)))
    width = alike.high - alike.low
    assert width / (apart.high - apart.low) == pytest.approx(2, rel=0.15)
    assert width == pytest.approx(2 * 2.01 * values.std() / 50**0.5, rel=0.15)


def test_an_interval_stays_within_0_and_1_and_one_person_tells_nothing() -> None:
    nearly = bound_score(pd.Series([1.0, 1.0, 1.0, 0.9]), list("abcd"))
    assert nearly.high == 1
    assert nearly.low < nearly.value == pytest.approx(0.975)
    alone = bound_score(pd.Series([0.5, 0.7]), ["a", "a"])
    assert (alone.low, alone.value, alone.high) == pytest.approx((0, 0.6, 1))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("data") / "synthetic.zip"
    archive.write(
        target,
        train_identities=1,
        test_identities=4,
        distractors=3,
        junk=2,
        images_per_camera=3,
        processes=1,
    )
    return target


@pytest.mark.slow
def test_the_command_scores_as_the_pipeline(
    model: Path, synthetic: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    listing = market1501.read(synthetic, published=False)
    for _ in pack(listing.open, listing.table.path.tolist(), SIZE, tmp_path / "packed.npy"):
        pass
    pixels = images.load(tmp_path / "packed.npy")
    features = extract(ianet.load(model).network, pixels, device=torch.device("cpu"))
    masks = [(listing.table.split == name).to_numpy(copy=True) for name in ("query", "gallery")]
    expected = retrieval.evaluate(
        *(features[torch.from_numpy(mask)] for mask in masks),
        *(listing.table.person[mask].to_numpy() for mask in masks),
        *(listing.table.camera[mask].to_numpy() for mask in masks),
    )
    arguments = ["evaluate", model, synthetic, "--option", "published=false"]
    outcome = run(*arguments, "--json")
    assert outcome.code == 0
    answer = json.loads(outcome.output)
    assert answer["scores"]["mAP"]["value"] == pytest.approx(expected.mAP, abs=1e-6)
    assert answer["cmc"] == pytest.approx(expected.cmc.tolist())
    assert answer["queries"] == expected.queries
    assert answer["identities"] == 4
    score = answer["scores"]["mAP"]
    assert score["low"] < score["value"] < score["high"]
    outcome = run(*arguments)
    assert outcome.output.splitlines()[4].split()[:2] == ["mAP", f"{100 * expected.mAP:.1f}"]
    assert "people" in outcome.errors
    values = {expected.mAP}
    for option in (["--flip"], ["--rerank"], ["--cameras", "ignore"], ["--pool", "mean"]):
        changed = json.loads(run(*arguments, "--json", *option).output)
        values.add(changed["scores"]["mAP"]["value"])
    assert len(values) == 5


def test_the_command_scores_own_photos_without_cameras(
    model: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    for seed, name in enumerate(["anna/1.jpg", "anna/2.jpg", "bert/3.jpg", "bert/4.jpg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise(seed // 2, 40 + seed, 20))
    arguments = ["evaluate", model, tmp_path / "photos", "--reader", "persons"]
    outcome = run(*arguments)
    assert outcome.code == 2
    assert outcome.errors.startswith("error: the camera of 4 of 4 pictures is unknown")
    answer = json.loads(run(*arguments, "--cameras", "ignore", "--json").output)
    assert (answer["queries"], answer["gallery"], answer["without_match"]) == (4, 4, 0)


def test_a_picture_of_query_and_gallery_is_embedded_once() -> None:
    def picture(name: str) -> Picture:
        return Picture(name, Mock(), "anna")

    def embed(pictures: list[Picture]) -> Iterator[FeatureTable]:
        """Batches of two, whose feature is the number in the name; 3 cannot be decoded."""
        for first in range(0, len(pictures), 2):
            paths = [each.path for each in pictures[first : first + 2]]
            calls.extend(paths)
            good = [path for path in paths if path != "3"]
            features = np.array([[float(path)] for path in good], np.float32).reshape(-1, 1)
            skipped = {"3": "cut"} if "3" in paths else {}
            persons = ["anna"] * len(good)
            yield FeatureTable(features, good, persons, persons, MODEL, skipped, flip=True)

    calls: list[str] = []
    parts = embed_test(
        [picture(name) for name in "132"], [picture(name) for name in "42513"], embed
    )
    assert calls == ["1", "3", "2", "4", "5"]
    assert [part.paths for part in parts] == [["1", "2"], ["4", "2", "5", "1"]]
    for part in parts:
        assert part.features[:, 0].tolist() == [float(path) for path in part.paths]
        assert part.flip
        assert part.skipped == {"3": "cut"}
    with pytest.raises(ValueError, match="not one picture of query or gallery can be decoded"):
        embed_test([picture("3")], [picture("1")], embed)


def test_a_bad_picture_of_a_data_set_is_named_once(
    model: Path, tmp_path: Path, run: Callable[..., Outcome]
) -> None:
    (tmp_path / "photos/anna").mkdir(parents=True)
    (tmp_path / "photos/anna/1.jpg").write_bytes(b"no picture")
    outcome = run("evaluate", model, tmp_path / "photos", "--reader", "persons")
    assert outcome.code == 2
    assert outcome.errors.startswith("error: anna/1.jpg cannot be decoded (cannot identify image")
    assert outcome.errors.count("cannot be decoded") == 1
