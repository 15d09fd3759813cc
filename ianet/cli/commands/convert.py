"""`ianet convert`: a checkpoint of another project as a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ianet.cli.shared import Json, print_json, print_note, show_step


def convert(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Weights of torchreid, fast-reid, reid-strong-baseline or torchvision: "
            "safetensors or a file of torch.save.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the model.")],
    backbone: Annotated[str, typer.Option(help="Such as resnet50.")],
    height: Annotated[int, typer.Option(min=1, help="Of the pictures that the network takes.")],
    width: Annotated[int, typer.Option(min=1, help="Of the pictures that the network takes.")],
    project: Annotated[
        Literal["torchreid", "fastreid", "strong_baseline", "torchvision"] | None,
        typer.Option(
            help="Whose network it is, as details differ. Without it the names of the weights "
            "decide. torchvision: with a last stride of 1, as ianet trains."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the model; otherwise that of the folder.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="On which the network was trained.")] = "unknown",
    terms: Annotated[
        str, typer.Option(help="Terms of the data and the weights, for the card.")
    ] = "Unknown. Ask who gave out the checkpoint.",
    json: Json = False,
) -> None:
    """Make a model of a checkpoint of another project.

    The model gives the features of that project, so `ianet evaluate` compares the two. A checkpoint
    of another architecture is refused.

    Examples:

    \b
      ianet convert model.pth.tar --backbone resnet50 --height 256 --width 128 -o other
      ianet convert market_bot_R50.pth --backbone resnet50 --height 256 --width 128 -o bot --json
    """
    from ianet.conversion import NOTES
    from ianet.conversion import convert as build
    from ianet.description import InputDescription
    from ianet.model import load, refuse_existing, save_model
    from ianet.network import describe

    refuse_existing(output)
    InputDescription(height, width)  # a wrong size is refused before the work
    with show_step("converting"):
        result = build(checkpoint, backbone, project)
        network = result.network
        description = describe(network, dataset=dataset, height=height, width=width)
        save_model(network, description, output, name=name or output.name, terms=terms)
        identity = load(output).identity
    note = NOTES.get(result.project, "")
    if json:
        print_json(
            {
                "output": str(output),
                "model": identity._asdict(),
                "project": result.project,
                "backbone": network.options.backbone,
                "neck": network.options.neck,
                "size": network.feature_size,
                "matched": result.matched,
                "dropped": result.dropped,
                "note": note,
            }
        )
        return
    neck = "with a neck" if network.options.neck else "without a neck"
    print(
        f"{output}: {network.options.backbone} {neck}, {network.feature_size} features, "
        f"{result.matched} tensors matched, dropped: {', '.join(result.dropped) or 'none'}"
    )
    if note:
        print_note(f"note: {note}")
