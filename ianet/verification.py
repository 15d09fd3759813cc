"""Same person or not: a threshold on the distance of two images, and how often it errs.

Two images are taken for one person where their cosine distance, 1 - cos in [0, 2], is below a
threshold t. The terms are those of ISO/IEC 19795-1 and of Phillips, Grother and Micheals,
Evaluation Methods in Face Recognition (Handbook of Face Recognition, 2011):

    FAR(t)   share of the pairs of other persons that are below t (false match rate)
    TAR(t)   share of the pairs of the same person that are below t (1 - false non-match rate)
    EER      FAR where FAR = 1 - TAR

The threshold for a limit of FAR is the greatest that keeps the limit. Distances are counted in
`BINS` bins, so a threshold is exact to 2e-6, and memory does not grow with the number of pairs.

Intervals are from a bootstrap over identities: a draw takes as many identities as there are, with
replacement. A pair of the same person counts as often as the person was drawn. A pair of other
persons counts as often as the product of both numbers. This is the vertex bootstrap of Snijders
and Borgatti, Non-Parametric Standard Errors and Tests for Network Statistics (Connections 22(2),
1999). For draws, FAR and TAR are counted at the distances of the curve and are linear between two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from ianet.comparison import Interval, draw_persons
from ianet.options import check_types

BINS = 2**20
"""Of equal width, for distances in [0, 2]."""
GRID = 128
"""Distances of a curve at equal steps of log FAR, and as many at equal steps of TAR."""
BLOCK = 512
"""Most images on each side of the pairs that are compared at a time."""
BLOCK_PERSONS = 128
"""Most persons of these images."""
LEAST_ERRORS = 30
"""Errors that a rate must count. Of 30 independent errors the rate is within 30 % of the true rate
with a confidence of 90 % (Doddington et al., The NIST Speaker Recognition Evaluation, Speech
Communication 31, 2000)."""

Values = NDArray[np.float64]
Advance = Callable[[int], object]
"""Takes the number of images that are done since the last call, for a progress bar."""


@dataclass(frozen=True)
class Threshold:
    """A threshold on the distance of two images.

    Attributes:
        far: the limit, a share of the pairs of other persons.
        distance: pairs below this distance are accepted.
        tar: share of the pairs of the same person that are accepted.

    Raises:
        ValueError: a wrong value.
    """

    far: float
    distance: Interval
    tar: Interval

    def __post_init__(self) -> None:
        check_types(self)
        for name, low, high, most in (
            ("far", self.far, self.far, 1),
            ("distance", self.distance.low, self.distance.high, 2),
            ("tar", self.tar.low, self.tar.high, 1),
        ):
            if not 0 <= low <= high <= most:
                raise ValueError(f"{name} of {low} to {high}: it must lie in 0 to {most}")


@dataclass(frozen=True)
class Curve:
    """The shares of pairs below ascending distances, from 0 and 0 to 1 and 1.

    Attributes:
        distance: from 0 to 2.
        same: share of the pairs of the same person that are nearer; TAR.
        other: share of the pairs of other persons that are nearer; FAR.

    Raises:
        ValueError: a wrong value.
    """

    distance: tuple[float, ...]
    same: tuple[float, ...]
    other: tuple[float, ...]

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("distance", "same", "other"):
            values = np.array(getattr(self, name))
            ends = [0, 2 if name == "distance" else 1]
            if len(values) != len(self.distance) or (np.diff(values) < 0).any():
                raise ValueError(f"{name} holds {len(values)} values that do not ascend")
            if values[[0, -1]].tolist() != ends:
                raise ValueError(f"{name} does not go from {ends[0]} to {ends[1]}")

    def shares(self, distance: float) -> tuple[float, float]:
        """Return the shares below a distance, of pairs of the same person and of other persons.

        The shares are linear between two distances of the curve.
        """
        same, other = (np.interp(distance, self.distance, part) for part in (self.same, self.other))
        return float(same), float(other)


@dataclass(frozen=True)
class Verification:
    """How well features tell whether two images show one person.

    Attributes:
        images, identities: that were compared.
        same_pairs, other_pairs: pairs of the same person, and of other persons.
        thresholds: in the order of the limits of FAR.
        eer: equal error rate.
        curve: of at most 2 `GRID` + 2 distances, and of the thresholds.

    Raises:
        ValueError: a wrong value.
    """

    images: int
    identities: int
    same_pairs: int
    other_pairs: int
    thresholds: tuple[Threshold, ...]
    eer: Interval
    curve: Curve

    def __post_init__(self) -> None:
        check_types(self)
        if not self.thresholds:
            raise ValueError("thresholds is empty: there must be one at least")


@torch.no_grad()
def verify(
    features: Tensor | ArrayLike,
    persons: ArrayLike,
    cameras: ArrayLike | None = None,
    *,
    fars: Sequence[float] = (1e-3,),
    draws: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    advance: Advance = lambda _: None,
) -> Verification:
    """Compare all pairs of N images.

    Args:
        features: (N, D), a tensor or an array; the device of a tensor computes, in float32.
        persons: (N,) integers or text.
        cameras: (N,) integers or text. Pairs of the same person from one camera are then left out,
            as such images are often neighbours in a video. Without cameras all pairs count.
        fars: limits of FAR.
        draws: of the bootstrap. A draw without a pair of either kind does not count.
        confidence: share of the draws within an interval.
        seed: of the draws.
        advance: takes the number of images that are done; every image is done twice.

    Raises:
        ValueError: as `count_pairs` and `check_rates`, or features that do not fit or are not
            finite.
    """
    same_pairs, other_pairs = count_pairs(persons, cameras)
    check_rates(fars, other_pairs, "pairs of other persons")
    images = _sort(features, persons, cameras)
    exact = _count_nearer(images, advance)
    limits = [int(exact.other.searchsorted(far, "right")) - 1 for far in fars]
    edges = np.unique([*_choose_grid(exact), *limits])
    curve = _Curve(*(values[edges] for values in exact))

    draws_of_curve = list(
        _resample(images, edges, draw_persons(images.identities, draws, seed), advance)
    )
    crossings = [[_cross(draw, draw.other - far) for draw in draws_of_curve] for far in fars]

    def estimate(value: float, values: Iterable[float]) -> Interval:
        return estimate_interval(value, values, confidence)

    return Verification(
        images=len(images.person),
        identities=images.identities,
        same_pairs=same_pairs,
        other_pairs=other_pairs,
        thresholds=tuple(
            Threshold(
                far,
                estimate(exact.distance[limit], (distance for distance, _, _ in crossing)),
                estimate(exact.same[limit], (same for _, same, _ in crossing)),
            )
            for far, limit, crossing in zip(fars, limits, crossings, strict=True)
        ),
        eer=estimate(_equal_error(exact), map(_equal_error, draws_of_curve)),
        curve=Curve(*(tuple(values.tolist()) for values in curve)),
    )


def count_pairs(persons: ArrayLike, cameras: ArrayLike | None = None) -> tuple[int, int]:
    """Return how many pairs `verify` compares: of the same person, and of other persons.

    Args:
        persons, cameras: as of `verify`.

    Raises:
        ValueError: lengths that disagree, or no pair of either kind.
    """
    table = pd.DataFrame({"person": np.asarray(persons)})
    same = _count_within(table, ["person"])
    other = len(table) * (len(table) - 1) // 2 - same
    if cameras is not None:
        table["camera"] = np.asarray(cameras)
        same -= _count_within(table, ["person", "camera"])
    if not same or not other:
        kind = "different persons" if same else "one person"
        seen = " from two cameras" if cameras is not None and not same else ""
        raise ValueError(f"no two of {len(table):,} images show {kind}{seen}: add such images")
    return same, other


def _count_within(table: pd.DataFrame, columns: list[str]) -> int:
    """Return the number of pairs of rows that agree in all columns."""
    sizes = table.groupby(columns).size()
    return int((sizes * (sizes - 1) // 2).sum())


def check_rates(fars: Sequence[float], number: int, kind: str) -> None:
    """Raise ValueError unless the limits of FAR differ, and each allows `LEAST_ERRORS` errors.

    Args:
        fars: the limits.
        number: of what FAR is a share.
        kind: of what FAR is a share, for the message.
    """
    for far in fars:
        if not 0 < far < 1:
            raise ValueError(f"the false-accept rate is {far:g}: choose a share between 0 and 1")
        if fars.count(far) > 1:
            raise ValueError(
                f"the false-accept rate {far:g} is given {fars.count(far)} times: give it once"
            )
        if far * number < LEAST_ERRORS:
            least = LEAST_ERRORS / number
            remedy = (
                f"{least:.2g}, or add images"
                if least < 1
                else f"a data set of {-(-LEAST_ERRORS // far):,.0f} {kind} at least"
            )
            raise ValueError(
                f"a false-accept rate of {far:g} is {far * number:.2g} of {number:,} {kind}, and a "
                f"rate needs {LEAST_ERRORS}: choose {remedy}"
            )


def normalize_rows(features: Tensor | ArrayLike, images: int) -> Tensor:
    """Return features, (N, D), in float32 and of length 1; a zero vector stays zero.

    Args:
        features: (N, D).
        images: N.

    Raises:
        ValueError: another shape, or features that are not real, not finite or too large.
    """
    vectors = features if isinstance(features, Tensor) else torch.from_numpy(np.array(features))
    if vectors.is_complex():
        raise ValueError(f"features are {vectors.dtype}: give real numbers")
    if vectors.ndim != 2 or len(vectors) != images:
        raise ValueError(f"features of shape {tuple(vectors.shape)}, and {images:,} persons")
    vectors = vectors.float()
    if not torch.linalg.vector_norm(vectors, dim=1).isfinite().all():
        raise ValueError("features hold values that are NaN or infinite, or too large")
    return F.normalize(vectors)


@torch.no_grad()
def cosine_distance(first: Tensor | ArrayLike, second: Tensor | ArrayLike) -> float:
    """Return the distance of two features, (D,) each; 1 from a zero vector."""
    left, right = (
        normalize_rows((each.cpu() if isinstance(each, Tensor) else np.asarray(each))[None], 1)
        for each in (first, second)
    )
    return min(2.0, max(0.0, 1 - float((left * right).sum())))


def estimate_interval(value: float, values: Iterable[float], confidence: float) -> Interval:
    """Return a value with its percentile interval in a bootstrap, widened to hold the value.

    Args:
        value: of all identities.
        values: of each draw.
        confidence: share of the draws within the interval.
    """
    low, high = np.quantile([*values], [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(value), float(min(low, value)), float(max(high, value)))


class _Curve(NamedTuple):
    """The values of a `Curve` as arrays."""

    distance: Values
    same: Values
    other: Values


class _Images(NamedTuple):
    """Images in the order of their persons.

    Attributes:
        features: (N, D) float32, of length 1 or 0.
        person: (N,), ascending from 0.
        camera: (N,); None where all pairs count.
        identities: number of persons.
    """

    features: Tensor
    person: Tensor
    camera: Tensor | None
    identities: int


def _sort(features: Tensor | ArrayLike, persons: ArrayLike, cameras: ArrayLike | None) -> _Images:
    person, names = pd.factorize(np.asarray(persons))
    vectors = normalize_rows(features, len(person))
    order = torch.from_numpy(person.argsort(kind="stable")).to(vectors.device)

    def sort(codes: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(codes).to(vectors.device)[order]

    camera = None if cameras is None else sort(pd.factorize(np.asarray(cameras))[0])
    return _Images(vectors[order], sort(person), camera, len(names))


def _strips(images: _Images) -> list[slice]:
    """Return strips of at most `BLOCK` images and `BLOCK_PERSONS` persons, with all."""
    person = images.person.cpu().numpy()
    strips = [slice(0, 0)]
    while strips[-1].stop < len(person):
        first = strips[-1].stop
        stop = min(first + BLOCK, int(person.searchsorted(person[first] + BLOCK_PERSONS)))
        strips.append(slice(first, stop))
    return strips[1:]


def _compare(images: _Images, strips: Sequence[slice], rows: slice) -> Iterator[_Pairs]:
    """Yield the pairs of a strip of images with each strip from there on."""
    for columns in strips[strips.index(rows) :]:
        row, column = images.person[rows, None], images.person[columns]
        distance = 1 - images.features[rows] @ images.features[columns].T
        bins = distance.mul_(BINS / 2).long().clamp_(0, BINS - 1)
        if rows == columns:
            bins.masked_fill_(torch.ones_like(bins, dtype=torch.bool).tril(), BINS)
        if images.camera is not None and row[-1] >= column[0]:
            one_camera = images.camera[rows, None] == images.camera[columns]
            bins.masked_fill_(one_camera & (row == column), BINS)
        yield _Pairs(bins, row, column)


class _Pairs(NamedTuple):
    """The pairs of r images with c images.

    Attributes:
        bins: (r, c) int64, of the distances; `BINS` for a pair that does not count. Each pair of
            images counts once.
        row, column: persons, (r, 1) and (c,).
    """

    bins: Tensor
    row: Tensor
    column: Tensor


def _count_nearer(images: _Images, advance: Advance) -> _Curve:
    """Return the shares of pairs below the edges of all bins."""
    counts = torch.zeros(2 * (BINS + 1), dtype=torch.int64, device=images.person.device)
    strips = _strips(images)
    for rows in strips:
        for bins, row, column in _compare(images, strips, rows):
            places = (bins + (BINS + 1) * (row != column)).flatten()
            counts.scatter_add_(0, places, torch.ones_like(places))
        advance(rows.stop - rows.start)
    same, other = counts.view(2, BINS + 1)[:, :BINS].cpu().numpy()
    return _Curve(np.linspace(0, 2, BINS + 1), _accumulate(same), _accumulate(other))


def _accumulate(counts: NDArray[np.generic]) -> Values:
    """Return the shares below the edges of bins, from 0 to 1, (..., bins + 1)."""
    nearer = counts.cumsum(-1, dtype=np.float64)
    return np.insert(nearer / nearer[..., -1:], 0, 0, axis=-1)


def _choose_grid(exact: _Curve) -> NDArray[np.int64]:
    """Return edges at equal steps of log FAR and of TAR, with the first and the last edge."""
    least = exact.other[exact.other > 0][0]
    far = exact.other.searchsorted(np.geomspace(least, 1, GRID))
    tar = exact.same.searchsorted(np.linspace(0, 1, GRID))
    return np.array([0, *far, *tar, BINS])


def _resample(
    images: _Images, edges: NDArray[np.int64], times: NDArray[np.int64], advance: Advance
) -> Iterator[_Curve]:
    """Return the curve of each draw of identities that has pairs of both kinds.

    Args:
        images: that are compared.
        edges: of bins, ascending from 0 to `BINS`, at which the curves are counted.
        times: (draws, identities), how often a draw has an identity.
        advance: as of `verify`.
    """
    device = images.person.device
    widths = np.diff(edges, append=BINS + 1)  # the last step is of pairs that do not count
    step_of_bin = torch.from_numpy(np.arange(len(widths)).repeat(widths)).to(device)
    weights = torch.from_numpy(times).float().to(device)
    shape = (len(times), len(widths) - 1)
    same, other = torch.zeros(2, *shape, dtype=torch.float64, device=device)
    strips = _strips(images)
    for rows in strips:
        for bins, row, column in _compare(images, strips, rows):
            # The pairs of each two persons are counted in each step, then weighted.
            first, second = row.unique(), column.unique()  # without gaps, as images are sorted
            pair = (row - first[0]) * len(second) + (column - second[0])
            places = pair * len(widths) + step_of_bin[bins]
            size = len(first) * len(second) * len(widths)
            counts = places.flatten().bincount(minlength=size).view(-1, len(widths))[:, :-1].float()
            left, right = weights[:, first, None], weights[:, None, second]
            equal = first[:, None] == second
            other += (left * right * ~equal).flatten(1) @ counts
            if equal.any():
                same += (left * equal).flatten(1) @ counts
        advance(rows.stop - rows.start)
    is_defined = ((same.sum(1) > 0) & (other.sum(1) > 0)).cpu().numpy()
    shares = (_accumulate(counts.cpu().numpy()[is_defined]) for counts in (same, other))
    distance = np.linspace(0, 2, BINS + 1)[edges]
    return (_Curve(distance, *draw) for draw in zip(*shares, strict=True))


def _cross(curve: _Curve, rising: Values) -> tuple[float, float, float]:
    """Return distance, TAR and FAR where a value rises above 0, linear between two distances.

    Args:
        curve: (G,).
        rising: (G,), not above 0 at first, ascending, and above 0 at last.
    """
    after = int((rising > 0).argmax())
    part = rising[after - 1] / (rising[after - 1] - rising[after])
    distance, same, other = (
        float(values[after - 1] + part * (values[after] - values[after - 1])) for values in curve
    )
    return distance, same, other


def _equal_error(curve: _Curve) -> float:
    """Return FAR where FAR = 1 - TAR."""
    return _cross(curve, curve.other + curve.same - 1)[2]
