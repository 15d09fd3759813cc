"""`ianet compare`: same person or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ianet.cli.shared import (
    Device,
    Flip,
    Json,
    ModelSource,
    Precision,
    print_json,
    print_note,
    show_step,
)


def compare(
    model: ModelSource,
    first: Annotated[Path, typer.Argument(metavar="A", help="A picture of a person.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another picture.")],
    far: Annotated[
        float | None,
        typer.Option(
            help="False-accept rate of the threshold; by default the first of the calibration."
        ),
    ] = None,
    device: Device = "auto",
    precision: Precision = "float32",
    flip: Flip = False,
    json: Json = False,
) -> None:
    """Say whether two pictures show the same person, at the threshold of the model.

    `ianet calibrate` gives a model its thresholds. Without them the distance alone is printed. A
    model that was calibrated with --flip compares with --flip.

    Examples:

    \b
      ianet compare CALIBRATED anna.jpg somebody.jpg
      ianet compare CALIBRATED anna.jpg somebody.jpg --far 0.01 --json
    """
    from ianet.cli.embedding import choose_flip
    from ianet.model import load
    from ianet.pictures import find_pictures
    from ianet.verification import cosine_distance

    loaded = load(model)
    calibration = loaded.description.calibration
    if far is not None and calibration is None:
        raise ValueError(
            f"{model} has no threshold: find one with `ianet calibrate`, without --far"
        )
    pictures = []
    for source in (first, second):
        [picture, *others] = find_pictures(source, "none")
        if others:
            raise ValueError(f"{source} holds {1 + len(others)} pictures: name one")
        pictures.append(picture)
    flips = {}
    if calibration is not None:
        calibration.judge(0, far)  # an unknown limit is refused before the work
        flips[f"the threshold of {model}"] = calibration.flip
    with show_step("comparing"):
        [table] = loaded.embed_batches(
            pictures,
            batch=2,
            device=device,
            precision=precision,
            flip=choose_flip(flip, flips),
            skip_bad=True,
        )
    for path, reason in table.skipped.items():
        raise ValueError(f"{path} cannot be decoded ({reason}): take another picture")
    distance = cosine_distance(*table.features)
    answer = {"model": loaded.identity._asdict(), "distance": distance}
    if calibration is None:
        if json:
            print_json(answer)
        else:
            print(f"distance {distance:.4f}")
        print_note("the model has no threshold: `ianet calibrate` finds one")
        return
    judgement = calibration.judge(distance, far)
    threshold = judgement.threshold
    if json:
        print_json(
            {
                **answer,
                "same_person": judgement.is_same,
                "threshold": threshold.distance.value,
                "far": threshold.far,
                "tar": threshold.tar.value,
                "same_farther": judgement.same_farther,
                "other_nearer": judgement.other_nearer,
            }
        )
        return
    verdict, side = (
        ("same person", "below") if judgement.is_same else ("not the same person", "not below")
    )
    print(
        f"{verdict}: the distance {distance:.4f} is {side} {threshold.distance.value:.4f}, the "
        f"threshold at a false-accept rate of {threshold.far:g}"
    )
    print(
        f"of known pairs, {100 * judgement.same_farther:.3g} % of the same person are as far or "
        f"farther apart, and {100 * judgement.other_nearer:.3g} % of other persons are nearer"
    )
