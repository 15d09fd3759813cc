"""`ianet export`: a model as one file for other runtimes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ianet.cli.shared import (
    Batch,
    Cameras,
    Json,
    ModelSource,
    Reader,
    ReaderOptions,
    parse_options,
    print_json,
    print_note,
    print_table,
    progress,
)

if TYPE_CHECKING:
    from ianet.feature_table import FeatureTable
    from ianet.pictures import Picture

BATCHES = (1, 8, 32)  # whose speed is measured


def export(
    model: ModelSource,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File, with the format as its suffix.")
    ],
    format: Annotated[
        Literal["onnx", "pt2"],
        typer.Option(help="onnx, for most runtimes, or pt2, which torch.export.load reads."),
    ] = "onnx",
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="DATASET", help="Compare the file with the model on this data set, on a CPU."
        ),
    ] = None,
    reader: Reader = None,
    option: ReaderOptions = None,
    cameras: Cameras = "respect",
    batch: Batch = 32,
    json: Json = False,
) -> None:
    """Write a model as one file that takes pixels and gives features.

    The input "images" is (batch, height, width, 3) uint8 in RGB, resized to the model's size, for
    batches of any size. The output "features" is (batch, D) float32. What else must be known is in
    the file. The check exits with 1 if a feature differs by more than 0.0001.

    Examples:

    \b
      ianet export MODEL -o model.onnx
      ianet export MODEL --format pt2 -o model.pt2
      ianet export MODEL -o model.onnx --check data/Market-1501-v15.09.15.zip
    """
    from ianet.evaluation import list_test
    from ianet.export import check_packages, describe
    from ianet.export import export as write_exported
    from ianet.files import check_output
    from ianet.model import load
    from ianet.readers import read_source

    if output.suffix != f".{format}":
        raise ValueError(f"{output} is to be {format}: name it {output.with_suffix('.' + format)}")
    check_output(output)
    if format == "onnx":
        check_packages()
    loaded = load(model)
    if check:
        listing = read_source(check, reader, parse_options(option))
        query, gallery = list_test(listing, check)
    print_note(f"exporting {loaded.identity.name}, which takes up to some minutes")
    write_exported(loaded, output, format)
    answer: dict[str, Any] = {"output": str(output), **describe(loaded)}
    if not check:
        if json:
            print_json(answer)
        else:
            print(f"{output}: {answer['input']}; {answer['output']}")
        return

    from functools import partial

    from ianet.cli.embedding import embed
    from ianet.evaluation import embed_test, evaluate
    from ianet.export import (
        LARGEST_DIFFERENCE,
        embed_exported,
        find_difference,
        measure,
        open_exported,
        open_model,
    )

    run = open_exported(output)
    embed_original = partial(
        embed,
        loaded,
        batch=batch,
        device="cpu",
        precision="float32",
        flip=False,
        skip_bad=False,
    )

    def embed_copy(pictures: list[Picture]) -> Iterator[FeatureTable]:
        with progress("embedding with the file", len(pictures)) as advance:
            for table in embed_exported(run, loaded, pictures, batch):
                yield table
                advance(len(table))

    originals, copies = (
        embed_test(query, gallery, function) for function in (embed_original, embed_copy)
    )
    difference = max(map(find_difference, originals, copies))
    first = query[: BATCHES[-1]]
    rows = []
    for name, tables, runner in (
        ("model", originals, open_model(loaded)),
        (output.name, copies, run),
    ):
        scores = evaluate(*tables, cameras=cameras, scoring=listing.scoring).scores
        speeds = measure(runner, loaded, first, BATCHES)
        rows.append((name, scores, speeds))
    if json:
        answer["difference"] = difference
        answer["check"] = [
            {
                "name": name,
                "scores": {score: value.value for score, value in scores.items()},
                "speed": [
                    {
                        "batch": speed.batch,
                        "latency_s": speed.latency,
                        "images_per_s": speed.images_per_second,
                    }
                    for speed in speeds
                ],
            }
            for name, scores, speeds in rows
        ]
        print_json(answer)
    else:
        print_table(
            ["", "top-1 %", "mAP %", *(f"ms, batch {size}" for size in BATCHES)]
            + [f"images/s, batch {size}" for size in BATCHES],
            [
                [
                    name,
                    *(
                        f"{100 * scores[score].value:.2f}" if score in scores else "–"
                        for score in ("top-1", "mAP")
                    ),
                    *(f"{1000 * speed.latency:.1f}" for speed in speeds),
                    *(f"{speed.images_per_second:.1f}" for speed in speeds),
                ]
                for name, scores, speeds in rows
            ],
        )
        print_note(f"the largest difference of a feature is {difference:.1e}, on a CPU")
    if not difference <= LARGEST_DIFFERENCE:
        print_note(f"too much: {LARGEST_DIFFERENCE:g} at most is what rounding explains")
        raise typer.Exit(1)
