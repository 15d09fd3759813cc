"""Thresholds against answers worked out by hand, slow loops over pairs, and what must hold."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_retrieval import peak_bytes

from ianet import verification
from ianet.comparison import Interval
from ianet.verification import (
    Curve,
    Threshold,
    check_rates,
    cosine_distance,
    count_pairs,
    verify,
)


def at(*degrees: float) -> NDArray[np.float64]:
    """Features whose distances are 1 - cos of differences of angles; their length is no matter."""
    angles = np.radians(degrees)
    lengths = np.arange(1, len(degrees) + 1)[:, None]
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths


def far_apart(degrees: float) -> float:
    return 1 - float(np.cos(np.radians(degrees)))


def people(
    seed: int, identities: int = 12, size: int = 6, dimensions: int = 8, signs: bool = False
) -> dict[str, Any]:
    """Images around a place for each person, in no order, and the cameras that took them.

    The signs of features in 64 dimensions have a length of 8, so that all distances are exact.
    """
    draw = np.random.default_rng(seed)
    persons = draw.integers(identities, size=identities * size)
    centres = draw.standard_normal((identities, dimensions))
    features = centres[persons] + 0.7 * draw.standard_normal((len(persons), dimensions))
    if signs:
        features = np.sign(features)
    return {
        "features": features.astype(np.float32),
        "persons": np.array([f"person {number}" for number in persons]),
        "cameras": draw.integers(3, size=len(persons)),
    }


def pairs(
    features: NDArray[Any], persons: NDArray[Any], cameras: NDArray[Any] | None = None
) -> list[tuple[float, Any, Any]]:
    """Distance and persons of each pair that counts."""
    rows = features.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return [
        (1 - float(rows[i] @ rows[j]), persons[i], persons[j])
        for i in range(len(rows))
        for j in range(i)
        if persons[i] != persons[j] or cameras is None or cameras[i] != cameras[j]
    ]


@pytest.fixture
def any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "LEAST_ERRORS", 1)


# Person 1 at 0 and 20 degrees, person 2 at 44 and 90: the pairs of one person are 20 and 46 apart,
# those of two persons 24, 44, 70 and 90.
@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize(
    ("far", "threshold", "tar"),
    [(0.26, 44, 0.5), (0.49, 44, 0.5), (0.5, 70, 1), (0.75, 90, 1), (0.99, 90, 1)],
)
def test_a_threshold_worked_by_hand(far: float, threshold: float, tar: float) -> None:
    result = verify(at(0, 20, 44, 90), [1, 1, 2, 2], fars=[far], draws=50)
    [point] = result.thresholds
    assert (result.images, result.identities, result.same_pairs, result.other_pairs) == (4, 2, 2, 4)
    assert point.distance.value == pytest.approx(far_apart(threshold), abs=4e-6)
    assert point.tar.value == tar


@pytest.mark.usefixtures("any_number")
@pytest.mark.parametrize(
    ("third", "eer"),
    [
        # Other persons are 57 apart and more, so all pairs of one person are nearer.
        (147, 0),
        # The third person's images are 59 apart, and one of them 29 and 31 from the second person's
        # images. FAR is 2 of 12 between 31 and 59, where TAR is 2 of 3, and FAR rises at 88 only.
        # So FAR meets 1 - TAR where TAR rises to 1.
        (121, 2 / 12),
    ],
)
def test_the_equal_error_rate_worked_by_hand(third: float, eer: float) -> None:
    result = verify(at(0, 2, 90, 92, 180, third), [1, 1, 2, 2, 3, 3], fars=[0.5], draws=50)
    assert result.eer.value == pytest.approx(eer, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_cameras", [False, True])
@pytest.mark.parametrize("block", [7, 128])
def test_all_is_as_in_a_loop_over_pairs(
    seed: int, with_cameras: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "BLOCK", block)
    case = people(seed, dimensions=64, signs=True)
    if not with_cameras:
        del case["cameras"]
    result = verify(**case, fars=[0.02, 0.1], draws=15, seed=seed)
    compared = pairs(**case)
    same = np.array([distance for distance, a, b in compared if a == b])
    other = np.array([distance for distance, a, b in compared if a != b])
    assert (result.same_pairs, result.other_pairs) == (len(same), len(other))
    assert count_pairs(case["persons"], case.get("cameras")) == (len(same), len(other))

    for point, far in zip(result.thresholds, [0.02, 0.1], strict=True):
        ordered = np.sort(other)
        # The first pair that must not be accepted any more.
        expected = ordered[int(np.floor(far * len(other)))]
        assert point.distance.value == pytest.approx(expected, abs=4e-6)
        assert point.tar.value == pytest.approx((same < point.distance.value).mean(), abs=1e-9)

    distances = np.array(result.curve.distance)
    np.testing.assert_allclose(
        result.curve.same, [(same < distance).mean() for distance in distances], atol=1e-9
    )
    np.testing.assert_allclose(
        result.curve.other, [(other < distance).mean() for distance in distances], atol=1e-9
    )

    # The order of first occurrence is that of pandas.factorize, which numbers the persons.
    names = list(dict.fromkeys(case["persons"]))
    times = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=15
    )
    samples: dict[str, list[float]] = {"eer": [], "0.02": [], "0.1": [], "tar": []}
    for draw in times:
        often = dict(zip(names, draw, strict=True))
        far_of_draw, tar_of_draw = (
            share_below(distances, compared, often, kind) for kind in (False, True)
        )
        for far in (0.02, 0.1):
            samples[str(far)].append(crossing(distances, far_of_draw, far))
        samples["tar"].append(crossing(tar_of_draw, far_of_draw, 0.1))
        samples["eer"].append(crossing(far_of_draw, far_of_draw + tar_of_draw, 1))
    estimates = {
        "0.02": result.thresholds[0].distance,
        "0.1": result.thresholds[1].distance,
        "tar": result.thresholds[1].tar,
        "eer": result.eer,
    }
    for name, estimate in estimates.items():
        low, high = np.quantile(samples[name], [0.025, 0.975])
        expected = [min(low, estimate.value), max(high, estimate.value)]
        np.testing.assert_allclose([estimate.low, estimate.high], expected, atol=1e-6, err_msg=name)


def share_below(
    distances: NDArray[np.float64],
    compared: list[tuple[float, Any, Any]],
    often: dict[Any, int],
    same: bool,
) -> NDArray[np.float64]:
    """Share of the weights of pairs of a kind below each distance, with persons drawn `often`."""
    total, below = 0, np.zeros(len(distances))
    for distance, a, b in compared:
        if (a == b) == same:
            weight = often[a] if same else often[a] * often[b]
            total += weight
            below += weight * (distance < distances)
    return below / total


def crossing(values: NDArray[np.float64], rising: NDArray[np.float64], level: float) -> float:
    """Value where an ascending sequence passes a level, between the last not above and the next."""
    after = next(place for place, height in enumerate(rising) if height > level)
    return float(np.interp(level, rising[after - 1 : after + 1], values[after - 1 : after + 1]))


@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_keeps_its_limit_and_is_the_greatest(seed: int) -> None:
    case = people(seed, identities=15, dimensions=3)
    fars = [0.05, 0.01, 0.3]
    result = verify(**case, fars=fars, draws=20)
    other = np.array([distance for distance, a, b in pairs(**case) if a != b])
    for far, point in zip(fars, result.thresholds, strict=True):
        assert point.far == far
        assert (other < point.distance.value - 1e-6).mean() <= far
        assert (other < point.distance.value + 4e-6).mean() > far
        assert point.distance.low < point.distance.value < point.distance.high


def test_the_curve_is_a_distribution_with_the_thresholds_on_it() -> None:
    result = verify(**people(0), fars=[0.02, 0.1], draws=20)
    for values, end in zip(astuple(result.curve), (2, 1, 1), strict=True):
        assert (np.diff(values) >= 0).all()
        assert (values[0], values[-1]) == (0, end)
    assert len(result.curve.distance) <= 2 * verification.GRID + 4
    for point in result.thresholds:
        place = result.curve.distance.index(point.distance.value)
        assert result.curve.other[place] <= point.far
        assert result.curve.same[place] == point.tar.value


def test_memory_does_not_grow_with_the_pairs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in (("BINS", 2**10), ("BLOCK", 64), ("BLOCK_PERSONS", 12), ("GRID", 16)):
        monkeypatch.setattr(verification, name, value)

    def find_peak(identities: int) -> int:
        case = people(0, identities, size=6)
        return peak_bytes(lambda: verify(**case, fars=[0.05], draws=5), tmp_path)

    few, many = find_peak(50), find_peak(200)
    # Distances of 1,200 images would take 5.7 million bytes, and each image takes 300 here.
    assert many - few < 300 * 6 * (200 - 50)


def test_shares_are_linear_between_the_distances_of_a_curve() -> None:
    curve = Curve((0, 0.5, 1, 2), (0, 0.4, 0.8, 1), (0, 0, 0.2, 1))
    assert curve.shares(0.5) == (0.4, 0)
    assert curve.shares(0.75) == pytest.approx((0.6, 0.1))
    assert curve.shares(1.5) == pytest.approx((0.9, 0.6))
    assert curve.shares(2) == (1, 1)


@pytest.mark.parametrize(
    ("distance", "same", "message"),
    [
        ((0, 1, 2), (0, 0.5), "same holds 2 values"),
        ((0, 1, 2), (0, 0.5, 0.4), "same holds 3 values that do not ascend"),
        ((0, 1, 2), (0, 0.5, 0.9), "same does not go from 0 to 1"),
        ((0, 1, 1.9), (0, 0.5, 1), "distance does not go from 0 to 2"),
        ((0, 1, 2), ("0", 0.5, 1), "same is .*each item is a finite number"),
    ],
)
def test_a_curve_that_is_none_is_refused(distance: Any, same: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Curve(distance, same, (0, 0.5, 1))


def test_order_names_and_type_of_the_images_are_no_matter() -> None:
    case = people(3)
    result = verify(**case, fars=[0.05], draws=10)
    order = np.argsort(case["persons"], kind="stable")  # persons in another order, too
    again = verify(
        torch.from_numpy(case["features"][order]).double(),
        [name.removeprefix("person ") for name in case["persons"][order]],
        case["cameras"][order] + 10,
        fars=[0.05],
        draws=10,
    )
    np.testing.assert_allclose(again.curve.distance, result.curve.distance, atol=4e-6)
    assert again.thresholds[0].tar.value == result.thresholds[0].tar.value
    assert again.eer.value == pytest.approx(result.eer.value, abs=1e-6)


def test_a_seed_gives_the_same_draws() -> None:
    case = people(1)
    first, again, other = (verify(**case, fars=[0.05], draws=30, seed=seed) for seed in (0, 0, 1))
    assert first.thresholds == again.thresholds
    assert first.eer == again.eer
    assert first.eer.low != other.eer.low


@pytest.mark.slow
def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Of many sets of people, the interval of a set holds the threshold of all people."""

    def draw(seed: int, identities: int) -> dict[str, Any]:
        case = people(seed, identities, size=4, dimensions=6)
        del case["cameras"]
        return case

    everybody = verify(**draw(1000, 500), fars=[0.05], draws=2)
    truth = everybody.thresholds[0].distance.value, everybody.eer.value
    held = np.zeros(2)
    for seed in range(40):
        result = verify(**draw(seed, 30), fars=[0.05], draws=100)
        for place, (true, estimate) in enumerate(
            zip(truth, (result.thresholds[0].distance, result.eer), strict=True)
        ):
            held[place] += estimate.low <= true <= estimate.high
    assert (held >= 0.85 * 40).all()
    assert (held < 40).any()


@pytest.mark.parametrize(
    ("persons", "cameras", "message"),
    [
        ([1, 2, 3, 4], None, "no two of 4 images show one person: add"),
        ([1, 1, 1, 1], None, "no two of 4 images show different persons: add"),
        ([1, 1, 2, 2], [1, 1, 2, 2], "no two of 4 images show one person from two cameras"),
    ],
)
def test_images_without_pairs_of_both_kinds_are_refused(
    persons: list[int], cameras: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        verify(at(0, 1, 2, 3), persons, cameras)


def test_a_limit_that_too_few_pairs_stand_behind_is_refused() -> None:
    case = people(0)
    other = count_pairs(case["persons"])[1]
    least = 30 / other
    with pytest.raises(
        ValueError, match=rf"of {other:,} pairs of other persons.* choose {least:.2g}"
    ):
        verify(case["features"], case["persons"], fars=[0.001])
    verify(case["features"], case["persons"], fars=[least * 1.001], draws=2)


@pytest.mark.parametrize(
    ("far", "number", "least"), [(0.5, 12, "60"), (0.9, 30, "34"), (0.001, 12, "30,000")]
)
def test_no_limit_above_1_is_advised(far: float, number: int, least: str) -> None:
    message = rf"and a rate needs 30: choose a data set of {least} pairs at least$"
    with pytest.raises(ValueError, match=message):
        check_rates([far], number, "pairs")
    check_rates([far], int(least.replace(",", "")), "pairs")
    with pytest.raises(ValueError, match=r"needs 30: choose 0\.97, or add images$"):
        check_rates([0.5], 31, "pairs")


def test_a_limit_that_is_given_again_is_refused() -> None:
    check_rates([0.5, 0.25], 120, "pairs")
    with pytest.raises(
        ValueError, match=r"^the false-accept rate 0\.25 is given 2 times: give it o"
    ):
        check_rates([0.25, 0.5, 0.25], 120, "pairs")


@pytest.mark.parametrize("far", [0.0, 1.0, -0.1, float("nan")])
def test_a_limit_that_is_no_share_is_refused(far: float) -> None:
    with pytest.raises(ValueError, match="choose a share between 0 and 1"):
        verify(**people(0), fars=[far])


def test_the_distance_of_two_features_of_any_kind() -> None:
    first, second = [3.0, 0.0], [1.0, 1.0]
    learned = torch.tensor(first, requires_grad=True)
    fixed = np.array(second, np.float32)
    fixed.flags.writeable = False
    for one in (first, np.array(first), torch.tensor(first, dtype=torch.bfloat16), learned):
        for other in (second, fixed, torch.tensor(second)):
            assert cosine_distance(one, other) == pytest.approx(far_apart(45), abs=1e-6)


def test_features_that_do_not_fit_are_refused() -> None:
    case = people(0)
    with pytest.raises(ValueError, match="features of shape"):
        verify(case["features"][1:], case["persons"], fars=[0.1])
    case["features"][3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        verify(**case, fars=[0.1])
    with pytest.raises(ValueError, match=r"or infinite, or too large$"):
        cosine_distance(np.array([1e30, 0], np.float32), np.array([1, 0], np.float32))
    with pytest.raises(ValueError, match=r"^features are torch\.complex128: give real numbers$"):
        cosine_distance(np.array([1j, 0]), np.array([1, 0]))


@pytest.mark.parametrize(
    ("far", "distance", "tar", "message"),
    [
        (-3.0, (1, 1, 1), (1, 1, 1), "far of -3.0 to -3.0: it must lie in 0 to 1"),
        (0.1, (5, 5, 5), (1, 1, 1), "distance of 5 to 5: it must lie in 0 to 2"),
        (0.1, (1, 1, 1), (2, 1, 3), "tar of 1 to 3: it must lie in 0 to 1"),
    ],
)
def test_a_threshold_that_no_distance_has_is_refused(
    far: float,
    distance: tuple[float, float, float],
    tar: tuple[float, float, float],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        Threshold(far, Interval(*distance), Interval(*tar))
