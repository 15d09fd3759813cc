"""`ianet calibrate`: thresholds for same person or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ianet.cli.shared import (
    Batch,
    Dataset,
    Device,
    Flip,
    Json,
    ModelSource,
    Precision,
    Reader,
    ReaderOptions,
    SkipBad,
    parse_options,
    print_json,
    print_note,
    print_table,
    progress,
)

if TYPE_CHECKING:
    from ianet.calibration import Calibration


def calibrate(
    model: ModelSource,
    dataset: Dataset,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the model that knows the thresholds.")
    ],
    far: Annotated[
        list[float],
        typer.Option(
            help="False-accept rate: the share of pairs of other persons that may be taken for "
            "one person. Several are possible; the first is what `ianet compare` takes."
        ),
    ] = [0.001],  # noqa: B006 - typer reads the default
    search_far: Annotated[
        list[float] | None,
        typer.Option(
            help="False-accept rate of searches: the share of queries that may be found in the "
            "gallery although their person is not in it."
        ),
    ] = None,
    cameras: Annotated[
        Literal["respect", "ignore"],
        typer.Option(
            help="respect: pairs of a person from one camera are left out. ignore: all pairs count."
        ),
    ] = "respect",
    picture: Annotated[
        Path | None, typer.Option(help="File for the ROC and both histograms: .png or .svg.")
    ] = None,
    reader: Reader = None,
    option: ReaderOptions = None,
    batch: Batch = 64,
    device: Device = "auto",
    precision: Precision = "float32",
    flip: Flip = False,
    skip_bad: SkipBad = False,
    json: Json = False,
) -> None:
    """Find the threshold on the distance below which two pictures show one person.

    Query and gallery of the data set are compared, whose people must not be those of the training.
    A copy of the model gets the thresholds, with 95 % intervals from random people.

    Examples:

    \b
      ianet calibrate MODEL data/Market-1501-v15.09.15.zip --far 0.001 -o CALIBRATED
      ianet calibrate MODEL photos --reader persons --cameras ignore --far 0.01 -o CALIBRATED
      ianet calibrate MODEL people.csv --far 0.01 --search-far 0.1 --picture roc.png -o CALIBRATED
    """
    from dataclasses import asdict, replace
    from functools import partial

    from ianet import drawing
    from ianet.calibration import PictureLabels, check_limits, describe_doubt, refuse_trained
    from ianet.calibration import calibrate as find_thresholds
    from ianet.cli.embedding import embed
    from ianet.evaluation import embed_test, list_test
    from ianet.files import check_output
    from ianet.model import load, refuse_existing, write_model
    from ianet.readers import read_source

    refuse_existing(output)
    if picture:
        drawing.check_suffix(picture)
        check_output(picture, [dataset, output])
    loaded = load(model)
    listing = read_source(dataset, reader, parse_options(option))
    query, gallery = list_test(listing, dataset)
    refuse_trained(listing.table, dataset)
    doubt = describe_doubt(loaded.description.dataset, listing.table, dataset)
    if doubt:
        print_note(f"warning: {doubt}")
    searches = search_far or []
    labels = PictureLabels.of(query), PictureLabels.of(gallery)
    check_limits(*labels, cameras=cameras, fars=far, search_fars=searches)
    embed_pictures = partial(
        embed,
        loaded,
        batch=batch,
        device=device,
        precision=precision,
        flip=flip,
        skip_bad=skip_bad,
    )
    tables = embed_test(query, gallery, embed_pictures)
    steps = check_limits(*tables, cameras=cameras, fars=far, search_fars=searches)
    with progress("comparing", steps) as advance:
        calibration = find_thresholds(
            *tables,
            dataset=dataset.name,
            cameras=cameras,
            fars=far,
            search_fars=searches,
            advance=advance,
        )
    # Before the picture, which may be in the folder of the model.
    write_model(loaded.network, replace(loaded.description, calibration=calibration), output)
    if picture:
        pairs = calibration.pairs
        points = {each.far: (each.distance.value, each.tar.value) for each in pairs.thresholds}
        title = f"{loaded.identity.name} on {dataset.name}"
        figure = drawing.draw_verification(
            pairs.curve.distance, pairs.curve.same, pairs.curve.other, points, title
        )
        drawing.save(figure, picture)
    if json:
        answer = asdict(calibration)
        del answer["pairs"]["curve"]
        print_json({"output": str(output), "model": loaded.identity._asdict(), **answer})
        return
    _print_thresholds(calibration, output)


def _print_thresholds(calibration: Calibration, output: Path) -> None:
    """Print the thresholds, and what they rest on.

    Args:
        calibration: of the model.
        output: the folder of the model that knows the thresholds.
    """
    pairs, search = calibration.pairs, calibration.search
    rows = [
        (f"two pictures, FAR {each.far:g}", each.distance, "TAR", each.tar)
        for each in pairs.thresholds
    ]
    if search:
        rows += [
            (f"search, FAR {each.far:g}", each.distance, "DIR", each.dir)
            for each in search.thresholds
        ]
    print_table(
        ["", "threshold", "95 % interval", "", "%", "95 % interval"],
        [
            [
                what,
                f"{limit.value:.4f}",
                f"{limit.low:.4f} to {limit.high:.4f}",
                name,
                f"{100 * rate.value:.1f}",
                f"{100 * rate.low:.1f} to {100 * rate.high:.1f}",
            ]
            for what, limit, name, rate in rows
        ],
    )
    print_note(
        f"EER {100 * pairs.eer.value:.2f} % ({100 * pairs.eer.low:.2f} to "
        f"{100 * pairs.eer.high:.2f}); {pairs.same_pairs:,} pairs of the same person and "
        f"{pairs.other_pairs:,} of other persons, {pairs.images:,} pictures of "
        f"{pairs.identities:,} people; {output} knows the thresholds"
    )
