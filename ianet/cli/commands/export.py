"""`ianet export`: a model as one file for other runtimes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

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
    show_step,
)

if TYPE_CHECKING:
    from ianet.comparison import Interval
    from ianet.export import Speed
    from ianet.feature_table import FeatureTable
    from ianet.model import Model
    from ianet.pictures import Picture

BATCHES = (1, 8, 32)  # whose speed is measured


class Check(NamedTuple):
    """How a model, or its exported file, does on a data set.

    Attributes:
        name: "model", or the name of the file.
        scores: by name.
        speeds: of each of `BATCHES`.
    """

    name: str
    scores: Mapping[str, Interval]
    speeds: Sequence[Speed]


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
    from ianet.export import LARGEST_DIFFERENCE, check_packages, describe
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
    with show_step("exporting"):
        write_exported(loaded, output, format)
    answer: dict[str, Any] = {"output": str(output), **describe(loaded)}
    if not check:
        if json:
            print_json(answer)
        else:
            print(f"{output}: {answer['input']}; {answer['output']}")
        return

    scoring = {"cameras": cameras, "scoring": listing.scoring}
    difference, checks = _compare(loaded, output, query, gallery, batch, scoring)
    if json:
        print_json({**answer, "difference": difference, "check": list(map(_list_values, checks))})
    else:
        _print_checks(checks)
        print_note(f"the largest difference of a feature is {difference:.1e}, on a CPU")
    if not difference <= LARGEST_DIFFERENCE:
        print_note(f"too much: {LARGEST_DIFFERENCE:g} at most is what rounding explains")
        raise typer.Exit(1)


def _compare(
    model: Model,
    file: Path,
    query: list[Picture],
    gallery: list[Picture],
    batch: int,
    scoring: Mapping[str, Any],
) -> tuple[float, list[Check]]:
    """Return the largest difference of a feature, and how the model and its file do.

    Args:
        model: of which the file is an export.
        file: that is compared.
        query, gallery: pictures of a data set.
        batch: pictures of one forward pass.
        scoring: arguments of `ianet.evaluation.evaluate`.
    """
    from functools import partial

    from ianet.cli.embedding import embed
    from ianet.evaluation import embed_test, evaluate
    from ianet.export import embed_exported, find_difference, measure, open_exported, open_model

    run = open_exported(file)
    embed_original = partial(
        embed,
        model,
        batch=batch,
        device="cpu",
        precision="float32",
        flip=False,
        skip_bad=False,
    )

    def embed_copy(pictures: list[Picture]) -> Iterator[FeatureTable]:
        with progress("embedding with the file", len(pictures)) as advance:
            for table in embed_exported(run, model, pictures, batch):
                yield table
                advance(len(table))

    originals = embed_test(query, gallery, embed_original)
    copies = embed_test(query, gallery, embed_copy)
    first = query[: BATCHES[-1]]
    runners = {"model": open_model(model), file.name: run}
    with show_step("scoring"):
        scores = [evaluate(*tables, **scoring).scores for tables in (originals, copies)]
    # The display of a step would take time from what is measured.
    checks = [
        Check(name, values, measure(runner, model, first, BATCHES))
        for (name, runner), values in zip(runners.items(), scores, strict=True)
    ]
    return max(map(find_difference, originals, copies)), checks


def _list_values(check: Check) -> dict[str, Any]:
    """Return a check as JSON has it."""
    return {
        "name": check.name,
        "scores": {name: score.value for name, score in check.scores.items()},
        "speed": [
            {
                "batch": speed.batch,
                "latency_s": speed.latency,
                "images_per_s": speed.images_per_second,
            }
            for speed in check.speeds
        ],
    }


def _print_checks(checks: Sequence[Check]) -> None:
    """Print a row for each check."""
    columns = [
        *("", "top-1 %", "mAP %"),
        *(f"ms, batch {size}" for size in BATCHES),
        *(f"images/s, batch {size}" for size in BATCHES),
    ]
    rows = [
        [
            check.name,
            *(
                f"{100 * check.scores[name].value:.2f}" if name in check.scores else "–"
                for name in ("top-1", "mAP")
            ),
            *(f"{1000 * speed.latency:.1f}" for speed in check.speeds),
            *(f"{speed.images_per_second:.1f}" for speed in check.speeds),
        ]
        for check in checks
    ]
    print_table(columns, rows)
