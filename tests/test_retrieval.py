"""Scores against answers worked out by hand, a slow reference, and what must not change them."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ianet import retrieval
from ianet.retrieval import count_candidates, evaluate, per_query

Case = dict[str, Any]
DISTANCES = ["cosine", "euclidean"]
AVERAGE_PRECISIONS = ["step", "trapezoid"]
KINDS = ["features", "ids", "cameras"]


def line(queries: list[tuple[float, int, int]], gallery: list[tuple[float, int, int]]) -> Case:
    """Arguments for images at places on a line, each given as (place, identity, camera)."""
    arguments: Case = {"distance": "euclidean"}
    for name, images in (("query", queries), ("gallery", gallery)):
        places, ids, cameras = zip(*images, strict=True)
        arguments[f"{name}_features"] = torch.tensor(places).float()[:, None]
        arguments[f"{name}_ids"] = torch.tensor(ids)
        arguments[f"{name}_cameras"] = torch.tensor(cameras)
    return arguments


def random_case(seed: int, quantised: bool, queries: int = 12, gallery: int = 60) -> Case:
    """Few identities and cameras, junk and distractors; quantised features are often tied.

    Quantised features are +-1 in 4 or 16 dimensions: lengths of 2 or 4, so that every distance
    is exact, in float32 too.
    """
    draw = np.random.default_rng(seed)
    dimensions = int(draw.choice([4, 16]))
    arguments: Case = {}
    for name, images, lowest in (("query", queries, 1), ("gallery", gallery, -1)):
        features = draw.standard_normal((images, dimensions))
        arguments[f"{name}_features"] = torch.tensor(np.sign(features) if quantised else features)
        arguments[f"{name}_ids"] = torch.tensor(draw.integers(lowest, 6, images))
        arguments[f"{name}_cameras"] = torch.tensor(draw.integers(1, 4, images))
    return arguments


def reference(case: Case, distance: str, average_precision: str) -> pd.DataFrame:
    """The definitions, query by query, with a full sort by (distance, gallery index)."""
    arrays = {name: value.numpy() for name, value in case.items()}
    gallery = list(zip(*(arrays[f"gallery_{n}"] for n in KINDS), strict=True))
    rows = {}
    for q, (query, identity, camera) in enumerate(
        zip(*(arrays[f"query_{n}"] for n in KINDS), strict=True)
    ):
        ranking = []
        for g, (image, other_identity, other_camera) in enumerate(gallery):
            same = other_identity == identity
            if other_identity == -1 or (same and other_camera == camera):
                continue
            if distance == "cosine":
                far = -(query @ image) / np.sqrt((query @ query) * (image @ image))
            else:
                far = (query - image) @ (query - image)
            ranking.append((far, g, same))
        ranks = [rank for rank, (_, _, match) in enumerate(sorted(ranking), 1) if match]
        if not ranks:
            continue
        terms = []
        for i, rank in enumerate(ranks, 1):
            before = (i - 1) / (rank - 1) if rank > 1 else 1.0
            step = average_precision == "step"
            terms.append(i / rank if step else (before + i / rank) / 2)
        rows[q] = (ranks[0], sum(terms) / len(ranks), len(ranks) / ranks[-1])
    return pd.DataFrame.from_dict(rows, orient="index", columns=retrieval.COLUMNS)


# Query 0 at 0, identity 1, camera 1:  place   1       2    3      4     5           6      7
#                                              camera other match  junk  distractor  match  match
#                                      rank    removed 1   2      -     3           4      5
# Query 1 at 10, identity 2, camera 1: the images stand at 7, 6, 5, 3, 2, 1; its match, at 2, is
# the fifth. Query 2 has nobody in the gallery, query 3 only an image of its own camera.
WORKED = line(
    queries=[(0, 1, 1), (10, 2, 1), (0, 9, 1), (0, 2, 2)],
    gallery=[(1, 1, 1), (2, 2, 2), (3, 1, 2), (4, -1, 2), (5, 0, 2), (6, 1, 3), (7, 1, 2)],
)


def test_scores_worked_by_hand() -> None:
    scores = evaluate(**WORKED, max_rank=6)
    assert scores.queries == 2
    assert scores.cmc.tolist() == [0, 0.5, 0.5, 0.5, 1, 1]
    first, second = (1 / 2 + 2 / 4 + 3 / 5) / 3, 1 / 5
    assert scores.mAP == pytest.approx((first + second) / 2)
    assert scores.mINP == pytest.approx((3 / 5 + 1 / 5) / 2)


def test_each_query_keeps_its_position() -> None:
    table = per_query(**WORKED)
    assert table.index.tolist() == [0, 1]
    assert table["first_rank"].tolist() == [2, 5]
    reordered = {
        name: value[[3, 1, 2, 0]] if name.startswith("query") else value
        for name, value in WORKED.items()
    }
    assert per_query(**reordered)["first_rank"].to_dict() == {1: 5, 3: 2}


def test_candidates_worked_by_hand() -> None:
    labels = {name: value for name, value in WORKED.items() if name.endswith(("ids", "cameras"))}
    table = count_candidates(**labels)
    assert table.matches.tolist() == [3, 1, 0, 0]
    assert table.candidates.tolist() == [5, 6, 6, 5]


def test_trapezoid_worked_by_hand() -> None:
    # First query: matches at ranks 2, 4, 5; the second's only match is at rank 5.
    first = ((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2 + (2 / 4 + 3 / 5) / 2) / 3
    second = (0 / 4 + 1 / 5) / 2
    table = per_query(**WORKED, average_precision="trapezoid")
    assert table["average_precision"].tolist() == pytest.approx([first, second])
    # Matches at ranks 1 and 3: the first term is 1.
    case = line([(0, 1, 1)], [(1, 1, 2), (2, 5, 2), (3, 1, 2)])
    table = per_query(**case, average_precision="trapezoid")
    assert table["average_precision"].item() == pytest.approx((1 + (1 / 2 + 2 / 3) / 2) / 2)


def test_ties_are_ranked_by_gallery_index() -> None:
    # All at distance 2: the ranks are the indices. Matches at ranks 2 and 4.
    case = line([(0, 1, 1)], [(2, 7, 1), (-2, 1, 2), (2, 8, 1), (-2, 1, 2), (2, 9, 1)])
    table = per_query(**case)
    assert table["first_rank"].item() == 2
    assert table["average_precision"].item() == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert table["inverse_negative_penalty"].item() == pytest.approx(2 / 4)


def test_the_curve_is_as_long_as_asked() -> None:
    assert evaluate(**WORKED).cmc.shape == (50,)
    assert evaluate(**WORKED).cmc[-1] == 1
    assert evaluate(**WORKED, max_rank=1).cmc.tolist() == [0]
    assert evaluate(**WORKED, max_rank=2).cmc.tolist() == [0, 0.5]


def test_cosine_and_euclidean_can_disagree() -> None:
    # The match points the query's way from afar, the other stands close by at 45 degrees.
    case: Case = {
        "query_features": torch.tensor([[1.0, 0.0]]),
        "gallery_features": torch.tensor([[1.0, 1.0], [9.0, 0.0]]),
        "query_ids": torch.tensor([1]),
        "gallery_ids": torch.tensor([2, 1]),
        "query_cameras": torch.tensor([1]),
        "gallery_cameras": torch.tensor([2, 2]),
    }
    assert per_query(**case, distance="cosine")["first_rank"].item() == 1
    assert per_query(**case, distance="euclidean")["first_rank"].item() == 2


def test_identity_zero_is_a_person_when_queried() -> None:
    # MSMT17 counts identities from 0.
    assert evaluate(**line([(0, 0, 1)], [(1, 0, 2), (2, 3, 2)])).mAP == 1


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("average_precision", AVERAGE_PRECISIONS)
@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_agrees_with_the_reference(
    distance: str,
    average_precision: str,
    quantised: bool,
    dtype: torch.dtype,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = random_case(seed, quantised)
    expected = reference(case, distance, average_precision)
    case = {
        name: value.to(dtype) if name.endswith("features") else value
        for name, value in case.items()
    }
    # Chunks of one query, of a few, of all; the gallery at once, and in 4 to 8 blocks.
    for chunk_bytes, block in (
        *((1, 2**15), (20_000, 2**15), (2**28, 2**15)),
        *((1, 9), (300, 7), (2**28, 11)),
    ):
        monkeypatch.setattr(retrieval, "CHUNK_BYTES", chunk_bytes)
        monkeypatch.setattr(retrieval, "BLOCK", block)
        table = per_query(**case, distance=distance, average_precision=average_precision)
        pd.testing.assert_frame_equal(table, expected, rtol=1e-12)


def test_the_reference_meets_ties() -> None:
    """Else the test above would prove nothing about them."""
    case = random_case(seed=0, quantised=True)
    similarities = case["query_features"] @ case["gallery_features"].T
    assert all(len(row.unique()) < len(row) / 2 for row in similarities)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, np.float32])
def test_blocks_give_what_the_whole_gallery_gives(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distances of small integers are exact, and a third of the gallery are copies of others."""
    case = random_case(seed=12, quantised=False, queries=40, gallery=1500)
    case["gallery_features"][1000:] = case["gallery_features"][:500]
    for name in ("query_features", "gallery_features"):
        values = (4 * case[name]).round()
        case[name] = values.numpy().astype(kind) if kind is np.float32 else values.to(kind)
    expected = {distance: per_query(**case, distance=distance) for distance in DISTANCES}
    monkeypatch.setattr(retrieval, "BLOCK", 256)
    monkeypatch.setattr(retrieval, "CHUNK_BYTES", 2**16)
    scores = {distance: per_query(**case, distance=distance) for distance in DISTANCES}
    pd.testing.assert_frame_equal(scores["euclidean"], expected["euclidean"], check_exact=True)
    # Another shape of a product may round otherwise, and swap images as far as each other.
    pd.testing.assert_frame_equal(scores["cosine"], expected["cosine"], rtol=1e-3)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("quantised", [False, True])
def test_the_order_of_the_queries_does_not_matter(distance: str, quantised: bool) -> None:
    case = random_case(seed=3, quantised=quantised)
    order = torch.randperm(len(case["query_ids"]), generator=torch.Generator().manual_seed(0))
    permuted = {n: value[order] if n.startswith("query") else value for n, value in case.items()}
    table = per_query(**permuted, distance=distance)
    table.index = pd.Index(order.numpy()[table.index])
    pd.testing.assert_frame_equal(table.sort_index(), per_query(**case, distance=distance))


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("quantised", [False, True])
def test_junk_does_not_matter(distance: str, quantised: bool) -> None:
    case = random_case(seed=4, quantised=quantised)
    copies = case["query_features"]  # as near as can be
    broken = torch.full_like(copies, torch.nan)
    images = 2 * len(copies)
    more = {
        "gallery_features": torch.cat([copies, broken, case["gallery_features"]]),
        "gallery_ids": torch.cat([torch.full((images,), -1), case["gallery_ids"]]),
        "gallery_cameras": torch.cat([torch.full((images,), 1), case["gallery_cameras"]]),
    }
    with_junk = per_query(**case | more, distance=distance)
    pd.testing.assert_frame_equal(with_junk, per_query(**case, distance=distance))


@pytest.mark.parametrize("quantised", [False, True])
def test_lengths_do_not_matter_to_cosine(quantised: bool) -> None:
    case = random_case(seed=5, quantised=quantised)
    scaled = dict(case)
    for name in ("query_features", "gallery_features"):
        powers = torch.arange(len(case[name])) % 41 - 20  # powers of two leave the ties exact
        scaled[name] = case[name] * (2.0**powers)[:, None]
    pd.testing.assert_frame_equal(per_query(**scaled), per_query(**case))


@pytest.mark.parametrize("distance", DISTANCES)
def test_kinds_of_input_give_the_same(distance: str) -> None:
    case = random_case(seed=6, quantised=True)
    expected = per_query(**case, distance=distance)

    def read_only(value: Tensor) -> np.ndarray:
        array = value.numpy().copy()
        array.flags.writeable = False
        return array

    def half(value: Tensor) -> Tensor:
        return value.bfloat16() if value.is_floating_point() else value.int()

    def strided(value: Tensor) -> Tensor:
        return torch.stack([value, value], dim=-1)[..., 0]

    def column(value: Tensor) -> Any:
        return value.numpy() if value.ndim == 2 else pd.Series(value.numpy(), index=value.numpy())

    def as_floats(value: Tensor) -> Tensor:  # as pandas has integers with a gap among them
        return value.double()

    for change in (read_only, half, strided, column, as_floats):
        other: Case = {name: change(value) for name, value in case.items()}
        pd.testing.assert_frame_equal(per_query(**other, distance=distance), expected)


@pytest.mark.parametrize("distance", DISTANCES)
def test_inputs_stay_as_they_are(distance: str) -> None:
    case = random_case(seed=7, quantised=False)
    kept = {name: value.clone() for name, value in case.items()}
    per_query(**case, distance=distance)
    assert all(torch.equal(case[name], kept[name]) for name in case)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_caller_s_modes_change_nothing(distance: str) -> None:
    case = random_case(seed=8, quantised=False)
    case = {n: value.float() if value.is_floating_point() else value for n, value in case.items()}
    expected = per_query(**case, distance=distance)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pd.testing.assert_frame_equal(per_query(**case, distance=distance), expected)
    with torch.inference_mode():
        inference = {name: value.clone() for name, value in case.items()}
    pd.testing.assert_frame_equal(per_query(**inference, distance=distance), expected)
    trained = case | {"query_features": case["query_features"].clone().requires_grad_()}
    pd.testing.assert_frame_equal(per_query(**trained, distance=distance), expected)


def test_zero_vectors_are_ranked_by_index() -> None:
    case = random_case(seed=9, quantised=True)
    zero = {name: torch.zeros_like(case[name]) for name in ("query_features", "gallery_features")}
    constant = {name: torch.ones_like(case[name]) for name in zero}
    expected = reference(case | constant, "euclidean", "step")
    for distance in DISTANCES:
        pd.testing.assert_frame_equal(per_query(**case | zero, distance=distance), expected)


def test_euclidean_far_from_the_origin() -> None:
    # Squared lengths are above 2^26, where float32 numbers are at least 8 apart; squared
    # distances differ by 4.
    case = random_case(seed=10, quantised=True)
    moved = {name: case[name].float() + 4096 for name in ("query_features", "gallery_features")}
    table = per_query(**case | moved, distance="euclidean")
    pd.testing.assert_frame_equal(table, reference(case, "euclidean", "step"), rtol=1e-12)


def peak_bytes(function: Callable[[], object], folder: Path) -> int:
    """The most bytes that torch held at a time, beyond what was there before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    changes = sorted(
        (event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]"
    )
    return max(accumulate(size for _, size in changes))


def test_a_peak_is_what_is_held_at_a_time(tmp_path: Path) -> None:
    def hold() -> None:
        first = torch.ones(1000)
        second = first + 1  # 8,000 bytes
        del first
        second += torch.ones(500)[0]

    assert 8000 <= peak_bytes(hold, tmp_path) < 9000


@pytest.mark.slow
@pytest.mark.parametrize("identities", [500, 1])  # 1: every image is of the query's identity
@pytest.mark.parametrize("quantised", [False, True])
def test_memory_is_bounded(
    quantised: bool, identities: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    case = random_case(seed=11, quantised=quantised, queries=100, gallery=2000)
    case |= {name: case[name] % identities for name in ("query_ids", "gallery_ids")}
    budget = 2**20  # all distances, in float64, would be 1.6 million bytes
    monkeypatch.setattr(retrieval, "CHUNK_BYTES", budget)
    peak = peak_bytes(lambda: per_query(**case), tmp_path)
    features = sum(case[n].nbytes for n in ("query_features", "gallery_features"))
    assert budget / 4 < peak < budget + 2 * features


def test_a_large_gallery_is_not_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    gallery = torch.randn(6000, 512, generator=draw)
    case = {
        "query_features": gallery[:20].clone(),
        "gallery_features": gallery,
        "query_ids": torch.arange(20),
        "gallery_ids": torch.arange(6000) % 300 - 1,  # some are junk
        "query_cameras": torch.zeros(20, dtype=torch.int64),
        "gallery_cameras": torch.arange(6000) % 7,
    }
    expected = per_query(**case)
    monkeypatch.setattr(retrieval, "BLOCK", 256)
    monkeypatch.setattr(retrieval, "CHUNK_BYTES", 2**18)
    pd.testing.assert_frame_equal(per_query(**case), expected)
    numbers = 100 * len(gallery)  # bytes of some numbers an image
    peak = peak_bytes(lambda: per_query(**case), tmp_path)
    assert peak < gallery.nbytes / 4
    assert peak < 2**18 + 3 * gallery[:256].nbytes + numbers


def test_no_more_than_some_rows_are_sorted_at_a_time() -> None:
    costs = torch.rand(64, 20_000, generator=torch.Generator().manual_seed(0))
    bounds = costs[:, :8].sort(dim=1).values
    tracemalloc.start()  # NumPy's arrays are not torch's
    less, not_more = retrieval._below(costs, bounds)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < costs.nbytes / 4
    assert torch.equal(less, (costs[:, None] < bounds[:, :, None]).sum(2))
    assert torch.equal(not_more, less + 1)


def changed(**changes: Any) -> Case:
    """WORKED with other arguments, or with other shapes of its own."""
    return WORKED | {
        name: change(WORKED[name]) if callable(change) else change
        for name, change in changes.items()
    }


def with_nan(features: Tensor) -> Tensor:
    return torch.where(torch.arange(len(features))[:, None] == 1, torch.nan, features)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (changed(distance="manhattan"), "distance is 'manhattan': choose one of cosine, eucl"),
        (changed(average_precision="area"), "average_precision is 'area': choose one of step"),
        (changed(max_rank=0), "max_rank is 0"),
        (changed(query_ids=lambda ids: ids[1:]), r"query features of 4 images, but .*\(3,\)"),
        (changed(gallery_cameras=lambda c: c[1:]), r"gallery features of 7 images, but .*\(6,\)"),
        (changed(gallery_ids=lambda ids: ids[:, None]), r"identities of shape \(7, 1\)"),
        (changed(query_ids=torch.tensor([1.0, 2.5, 9, 2])), "query identities hold 2.5: give int"),
        (changed(gallery_cameras=np.full(7, np.nan)), "gallery cameras hold nan: give integers"),
        (changed(gallery_ids=np.array(list("abcdefg"))), "gallery identities are <U1: give int"),
        (changed(query_ids=pd.Series([1, None, 9, 2])), "query identities hold nan: give int"),
        (changed(query_features=lambda f: f[0]), r"query features have shape \(1,\)"),
        (changed(query_features=lambda f: f.repeat(1, 2)), "hold 2 numbers each, gallery feat.* 1"),
        (changed(query_features=with_nan), "query features hold values that are NaN"),
        (changed(gallery_features=with_nan), "gallery features hold values that are NaN"),
        (changed(gallery_features=lambda f: f * 1e30), "gallery features hold .* too large"),
        (
            changed(query_ids=np.array([1, 2, 2**63, 2], np.uint64)),
            "query identities hold 9223372036854775808: give integers",
        ),
        (
            changed(query_features=lambda f: f.to(torch.complex64)),
            r"query features are torch\.complex64: give real numbers",
        ),
        (
            changed(gallery_features=lambda f: f.numpy().astype(complex)),
            "gallery features are complex128: give real numbers",
        ),
        (changed(query_ids=lambda ids: ids + 100), "every query would be left without a match"),
        (changed(query_ids=torch.full((4,), -1)), "every query would be left without a match"),
        (changed(gallery_ids=torch.full((7,), -1)), "every query would be left without a match"),
        (line([(0, 1, 1)], [(0, 1, 1), (1, 2, 2)]), "every query would be left without a match"),
        (
            changed(query_features=torch.empty(0, 1), query_ids=[], query_cameras=[]),
            "every query would be left without a match",
        ),
    ],
)
def test_mistakes_are_named(case: Case, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(**case)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8])
@pytest.mark.parametrize("labels", ["ids", "cameras"])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_labels_may_be_unsigned(kind: type[np.integer], labels: str, as_tensor: bool) -> None:
    expected = evaluate(**WORKED)
    changes = {}
    for name in (f"query_{labels}", f"gallery_{labels}"):
        values = np.asarray(WORKED[name])
        if values.min() < 0 and np.dtype(kind).kind == "u":
            values = np.where(values < 0, 200, values)  # junk
        values = values.astype(kind)
        changes[name] = torch.from_numpy(values) if as_tensor else values
    case = changed(**changes)
    if labels == "ids":
        case["gallery_ids"] = WORKED["gallery_ids"]
    scores = evaluate(**case)
    assert (scores.mAP, scores.mINP) == (expected.mAP, expected.mINP)
    assert np.array_equal(scores.cmc, expected.cmc)
