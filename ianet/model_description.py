"""What a model's folder says of the model, as values and as a card in Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field

from ianet.calibration import Calibration
from ianet.cameras import label_cameras
from ianet.comparison import Interval
from ianet.description import LATER, Description
from ianet.escapes import escape_markdown
from ianet.options import Cameras, check_types


@dataclass(frozen=True)
class ModelScores:
    """How well a model finds people on whom it was not trained.

    Attributes:
        dataset: whose query and gallery were scored.
        queries, identities: their numbers.
        top_1, mAP, mINP: see `ianet.retrieval`; None where the set's protocol does not define one.
        cameras: whether a match is from another camera than the query, or from any.

    Raises:
        ValueError: a wrong value.
    """

    dataset: str
    queries: int
    identities: int
    top_1: Interval
    mAP: Interval | None
    mINP: Interval | None
    cameras: Cameras = field(default="respect", metadata={LATER: True})

    def __post_init__(self) -> None:
        check_types(self)
        for score in (self.top_1, self.mAP, self.mINP):
            if score is not None and not 0 <= score.low <= score.high <= 1:
                raise ValueError(f"a score of {score.low} to {score.high}: it must lie in 0 to 1")


@dataclass(frozen=True)
class ModelDescription(Description):
    """A model: its network, and what a user must know before using the model.

    Attributes:
        name: of the model.
        terms: of the training data, which bind the user of the model too.
        scores: on people who were not trained on; empty where none are known.
        commit: of the code that trained the network; empty where unknown.
        calibration: thresholds, see `ianet calibrate`; None before a calibration.

    Raises:
        ValueError: a wrong value.
    """

    name: str
    terms: str
    scores: tuple[ModelScores, ...]
    commit: str
    calibration: Calibration | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.name or any(character.isspace() for character in self.name):
            raise ValueError(f"name is {self.name!r}: give a name without spaces")


def write_card(description: ModelDescription, digest: str, parameters: int) -> str:
    """Return the card of a model, in Markdown, which shows texts of the description as they are.

    Args:
        description: of the model.
        digest: of the model, see `ianet.model.Model`.
        parameters: their number.
    """
    size, features = description.input, description.features
    options = description.options
    blocks = ", ".join(options.after)
    network = f"{options.backbone}, " + (
        f"with blocks `{options.block}` after {blocks}" if blocks else "without blocks"
    )
    scores = "\n".join(
        f"| {_name(scores.dataset, scores.cameras)} | {_percent(scores.top_1)} | "
        f"{_percent(scores.mAP)} | {_percent(scores.mINP)} | {scores.identities:,} | "
        f"{scores.queries:,} |"
        for scores in description.scores
    )
    table = (
        "Scores are in %, with their 95 % intervals.\n\n"
        "| data set | top-1 | mAP | mINP | people | queries |\n|---|---|---|---|---|---|\n"
        f"{scores}\n\nOther cameras and other people give other scores. `ianet evaluate` scores "
        "a set of your own."
        if scores
        else "No score is known. `ianet evaluate` scores a set of your own."
    )
    threshold = (
        _describe_calibration(description.calibration)
        if description.calibration
        else "No threshold is known. `ianet calibrate` finds one on people of your own."
    )
    versions = ", ".join(f"{name} {version}" for name, version in description.versions.items())
    return f"""# {escape_markdown(description.name)}

A model for person re-identification. A picture of a person becomes {features.size} numbers, its
features. Pictures of the same person have features at a small {features.distance} distance.

```
ianet embed . photos -o features.parquet
ianet search . query gallery -k 10
```

## Input and output

| | |
|---|---|
| picture | {size.channels}, cut to one person |
| resize | to {size.height}x{size.width} (height x width), {size.resize}, by Pillow |
| values | scaled to {size.scale[0]:g} to {size.scale[1]:g} |
| mean, then deviation | {_list(size.mean)}, then {_list(size.deviation)} |
| features | {features.size} float32, {"" if features.normalized else "not "}of length 1 |
| distance | {features.distance} |
| network | {network}, {parameters / 1e6:.1f} million parameters |

`ianet` does all of this itself: give it photos of any size.

## Training data

Trained on {escape_markdown(description.dataset)}, {description.identities:,} people. Its terms:

> {escape_markdown(description.terms)}

## Scores

{table}

## Same person or not

{threshold}

## Intended use

The model is for research on re-identification. The model compares pictures and does not name
people. A small distance is no proof of identity. Let nobody be judged by a distance alone.

## Privacy

Features of a person's picture are personal data in many countries. Collect pictures and keep
features only as far as the law and the people in them allow.

## Origin

| | |
|---|---|
| features are those of | sha256:{digest} |
| commit | {escape_markdown(description.commit) or "unknown"} |
| versions | {escape_markdown(versions)} |
"""


def _describe_calibration(calibration: Calibration) -> str:
    pairs, dataset = calibration.pairs, _name(calibration.dataset, calibration.cameras)
    flip = ", with the mirrored pictures (--flip)" if calibration.flip else ""
    rows = "\n".join(
        f"| {each.far:g} | {each.distance.value:.4f} ({each.distance.low:.4f} to "
        f"{each.distance.high:.4f}) | {100 * each.tar.value:.1f} ({100 * each.tar.low:.1f} to "
        f"{100 * each.tar.high:.1f}) |"
        for each in pairs.thresholds
    )
    return f"""Two pictures whose distance is below the threshold count as one person. FAR is
the share of the pairs of other persons that are below the threshold. TAR is the share of the pairs
of the same person, in %. Intervals are of 95 %.

| FAR | threshold | TAR |
|---|---|---|
{rows}

From {pairs.images:,} pictures of {pairs.identities:,} people of {dataset}{flip}. Other
cameras and other people have other thresholds."""


def _name(dataset: str, cameras: Cameras) -> str:
    """Return the name of a data set, and whether its cameras were ignored."""
    return escape_markdown(dataset) + label_cameras(cameras)


def _percent(score: Interval | None) -> str:
    if score is None:
        return "–"
    return f"{score.value:.1%} ({score.low:.1%} to {score.high:.1%})".replace("%", "")


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
