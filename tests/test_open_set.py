"""DIR at FAR against answers worked out by hand and a slow loop, and what must hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ianet import open_set, verification
from ianet.open_set import search_open_set

NAMES = ("query_features", "gallery_features", "query_persons", "gallery_persons")
CAMERAS = ("query_cameras", "gallery_cameras")


def at(*degrees: float) -> NDArray[np.float64]:
    """Features whose distances are 1 - cos of differences of angles."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def far_apart(degrees: float) -> float:
    return 1 - float(np.cos(np.radians(degrees)))


@pytest.fixture
def any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "LEAST_ERRORS", 1)


# Query  at  person  nearest image of its person  of another person
# a      0   1       10                           40
# b      100 2       30 (its camera's is nearer)  20
# c      200 3       15                           70
# d      290 4       none                         75
WORKED: dict[str, Any] = {
    "query_features": at(0, 100, 200, 290),
    "query_persons": ["1", "2", "3", "4"],
    "query_cameras": [1, 1, 1, 1],
    "gallery_features": at(10, 130, 99, 215, 40, 80),
    "gallery_persons": ["1", "2", "2", "3", "9", "8"],
    "gallery_cameras": [2, 2, 1, 2, 1, 1],
}


@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize(
    ("far", "threshold", "rate"),
    [
        (0.25, 40, 2 / 3),  # the nearest other image of b alone is nearer than 40: a, c are found
        (0.5, 70, 2 / 3),  # b is accepted as another person
        (0.75, 75, 2 / 3),
    ],
)
def test_an_open_set_search_worked_by_hand(far: float, threshold: float, rate: float) -> None:
    search = search_open_set(**WORKED, fars=[far], draws=50)
    assert (search.queries, search.identities, search.mated, search.gallery) == (4, 4, 3, 6)
    [point] = search.thresholds
    assert point.distance.value == pytest.approx(far_apart(threshold), abs=1e-6)
    assert point.dir.value == rate


@pytest.mark.usefixtures("any_number")
def test_without_cameras_images_of_the_same_camera_count() -> None:
    case = {name: WORKED[name] for name in NAMES}
    [point] = search_open_set(**case, fars=[0.25], draws=50).thresholds
    assert point.dir.value == 1  # b at 100 is found at 99


@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize("side", CAMERAS)
def test_cameras_of_one_side_are_refused(side: str) -> None:
    case = {name: WORKED[name] for name in (*NAMES, side)}
    with pytest.raises(ValueError, match="cameras are given for one side alone: give query_camer"):
        search_open_set(**case, fars=[0.25])


def people(seed: int, queries: int = 150, gallery: int = 200) -> dict[str, Any]:
    """Some queries have nobody in the gallery; the signs of features make distances exact."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((30, 64))
    case: dict[str, Any] = {}
    for name, number, last in (("query", queries, 25), ("gallery", gallery, 30)):
        persons = draw.integers(5 if name == "gallery" else 0, last, size=number)
        features = np.sign(centres[persons] + 1.5 * draw.standard_normal((number, 64)))
        case |= {
            f"{name}_features": features,
            f"{name}_persons": persons,
            f"{name}_cameras": draw.integers(3, size=number),
        }
    return case


def nearest(case: dict[str, Any], cameras: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Distance of each query to its person, or infinity, and to another."""
    same, other = [], []
    for query, person, camera in zip(*(case[f"query_{n}"] for n in LABELS), strict=True):
        to_same, to_other = [np.inf], [np.inf]
        for image, his, place in zip(*(case[f"gallery_{n}"] for n in LABELS), strict=True):
            distance = 1 - query @ image / 64
            if his != person:
                to_other.append(distance)
            elif not cameras or place != camera:
                to_same.append(distance)
        same.append(min(to_same))
        other.append(min(to_other))
    return np.array(same), np.array(other)


LABELS = ("features", "persons", "cameras")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cameras", [False, True])
@pytest.mark.parametrize("pairs", [1, 2**21])
def test_all_is_as_in_a_loop(
    seed: int, cameras: bool, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_set, "BLOCK_PAIRS", pairs)
    case = people(seed)
    names = (*NAMES, *CAMERAS) if cameras else NAMES
    search = search_open_set(
        **{name: case[name] for name in names}, fars=[0.2, 0.4], draws=30, seed=seed
    )
    same, other = nearest(case, cameras)
    assert search.mated == np.isfinite(same).sum() < search.queries == 150

    def score(sample: list[int], far: float) -> tuple[float, float]:
        """Threshold and DIR of queries that may be named several times."""
        nearest_other = sorted(other[sample])
        threshold = nearest_other[int(far * len(sample) + 1e-9)]
        mated = [query for query in sample if np.isfinite(same[query])]
        hits = [query for query in mated if same[query] < min(other[query], threshold)]
        return threshold, len(hits) / len(mated)

    persons = case["query_persons"]
    order = list(dict.fromkeys(persons))
    times = np.random.default_rng(seed).multinomial(
        len(order), np.full(len(order), 1 / len(order)), size=30
    )
    samples = [
        [
            query
            for person, number in zip(order, draw, strict=True)
            for query in np.flatnonzero(persons == person)
            for _ in range(number)
        ]
        for draw in times
    ]
    for point in search.thresholds:
        threshold, rate = score(list(range(150)), point.far)
        assert point.distance.value == pytest.approx(threshold, abs=1e-6)
        assert point.dir.value == pytest.approx(rate)
        estimates = np.array([score(sample, point.far) for sample in samples])
        for estimate, values in zip((point.distance, point.dir), estimates.T, strict=True):
            low, high = np.quantile(values, [0.025, 0.975])
            ends = [min(low, estimate.value), max(high, estimate.value)]
            np.testing.assert_allclose([estimate.low, estimate.high], ends, atol=1e-6)


def test_a_threshold_keeps_its_limit_and_is_the_greatest() -> None:
    case = people(7)
    search = search_open_set(**case, fars=[0.2, 0.5], draws=10)
    _, other = nearest(case, cameras=True)
    for point in search.thresholds:
        limit = point.distance.value
        assert (other < limit - 1e-6).mean() <= point.far < (other < limit + 1e-6).mean()


@pytest.mark.parametrize("accepted", [57, 58, 82, 114])
def test_a_limit_of_some_of_the_queries_accepts_so_many(accepted: int) -> None:
    """In floating point 58 / 200 * 200 is less than 58."""
    case = people(7, queries=200)
    [point] = search_open_set(**case, fars=[accepted / 200], draws=10).thresholds
    nearest_other = np.sort(nearest(case, cameras=True)[1])
    assert point.distance.value == pytest.approx(nearest_other[accepted], abs=1e-6)


def test_a_larger_gallery_of_strangers_lowers_the_threshold() -> None:
    case = people(1)
    small = search_open_set(**case, fars=[0.2], draws=5).thresholds[0]
    draw = np.random.default_rng(1)
    case["gallery_features"] = np.concatenate(
        [case["gallery_features"], np.sign(draw.standard_normal((1000, 64)))]
    )
    case["gallery_persons"] = np.concatenate([case["gallery_persons"], np.full(1000, 99)])
    case["gallery_cameras"] = np.concatenate([case["gallery_cameras"], np.zeros(1000, int)])
    large = search_open_set(**case, fars=[0.2], draws=5).thresholds[0]
    assert large.distance.value < small.distance.value
    assert large.dir.value <= small.dir.value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gallery_persons": ["9"] * 6}, "no query has its person in the gallery"),
        ({"gallery_persons": ["1"] * 6}, "shows the person of a query and nobody else"),
        ({"gallery_persons": ["1"] * 5}, "features of shape"),
        ({"query_features": at(0, 100, 200, 290) * np.nan}, "NaN or infinite"),
    ],
)
@pytest.mark.usefixtures("any_number")
def test_what_cannot_be_searched_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search_open_set(**{**WORKED, **changes}, fars=[0.3])


def test_a_limit_that_too_few_queries_stand_behind_is_refused() -> None:
    with pytest.raises(ValueError, match="of 4 queries, and a rate needs 30: choose"):
        search_open_set(**WORKED, fars=[0.25])
