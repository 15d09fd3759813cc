"""`ianet attention`: where the IA blocks gather the features of points of a picture from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ianet.cli.shared import Json, ModelSource, format_count, print_json, show_step


def attention(
    model: ModelSource,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A picture of a person.")],
    point: Annotated[
        list[str],
        typer.Option(
            metavar="X,Y",
            help="Of the picture, in shares of width and height: 0,0 is the upper left corner. "
            "Several are possible.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File: .png or .svg.")],
    stage: Annotated[
        str | None, typer.Option(help="Whose last block is shown; by default the first with SIA.")
    ] = None,
    channel: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Of CIA's output, counted from 1; several are possible."),
    ] = None,
    json: Json = False,
) -> None:
    """Draw from where SIA gathers the features of a point, on a picture of yours.

    The picture is resized as for features. The first line of maps shows the weights of the relation
    S of the block (Eq. 5 of the paper). The second line shows what the same features tell with
    scaled products and without the last softmax, in logarithmic colours, as in Figure 8.

    Examples:

    \b
      ianet attention MODEL anna.jpg --point 0.5,0.1 -o head.png
      ianet attention MODEL anna.jpg --point 0.5,0.1 --point 0.4,0.9 --channel 5 -o maps.svg
    """
    from ianet.attention import Person, compute_maps, find_stages
    from ianet.drawing import check_suffix, save
    from ianet.files import check_output
    from ianet.maps import draw_maps
    from ianet.model import load
    from ianet.pictures import find_pictures, read_batches

    check_suffix(output)
    check_output(output, [image])
    points = dict(_parse_point(text) for text in point)
    loaded = load(model)
    stages = find_stages(loaded.network)
    if not stages:
        raise ValueError(
            f"{loaded.identity.name} has no block with SIA, so there is no relation to show"
        )
    [picture, *others] = find_pictures(image, "none")
    if others:
        raise ValueError(f"{image} holds {1 + len(others)} pictures: name one")
    size = (loaded.description.input.height, loaded.description.input.width)
    [batch] = read_batches([picture], size, 1)
    for path, reason in batch.skipped.items():
        raise ValueError(f"{path} cannot be decoded ({reason}): take another picture")
    person = Person(Path(picture.path).name, batch.pixels[0], points)
    stage_name = stage or stages[0]
    title = f"{loaded.identity.name}, the last block of {stage_name}"
    caption = (
        "Warmer is more; every map has its own scale. ppm: millionths more or less than alike."
    )
    with show_step("drawing"):
        [maps] = compute_maps(
            loaded.network, stage_name, [person], points=list(points), channels=channel or ()
        )
        save(draw_maps([maps], title, caption), output)
    if not json:
        print(f"{output}: {format_count(len(points), 'point')} after {stage_name}")
        return
    fields = [
        {
            "point": field.point,
            "relation": label,
            "weights": field.values.tolist(),
        }
        for label, line in maps.lines.items()
        for field in line
    ]
    print_json(
        {
            "output": str(output),
            "model": loaded.identity._asdict(),
            "stage": stage_name,
            "fields": fields,
        }
    )


def _parse_point(text: str) -> tuple[str, tuple[float, float]]:
    """Return a name and the point of a text like 0.5,0.1."""
    try:
        x, y = map(float, text.split(","))
    except ValueError as error:
        raise ValueError(f"--point {text}: write it as X,Y, such as 0.5,0.1") from error
    if not (0 <= x < 1 and 0 <= y < 1):
        raise ValueError(
            f"--point {text} is not in the picture: give shares of its width and height, from 0 "
            "to below 1"
        )
    return f"({x:g}, {y:g})", (x, y)
