"""What each network costs -> results/tables/cost.csv, .md, .tex and .html.

Parameters and multiply-adds as the paper's recipe has them, beside the paper's numbers; and for
each data set at hand what this machine does with them: images a second of training and of
inference, through the same functions that train and evaluate.
"""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import torch

from ianet.cost import multiply_adds, parameters
from ianet.features import extract
from ianet.network import Network, NetworkOptions
from ianet.training import Recipe, fit
from pipeline import page
from pipeline.settings import Costs, RecipeSettings, Settings, SettingsError, load, options, sheets
from pipeline.shell import stage, write_whole
from pipeline.table import DASH, TABLES

IDENTITIES = 751  # of Market-1501's training images; the classifier is not counted
BATCHES = 4  # of an epoch that is timed; one epoch before it warms up


def built(network: dict[str, Any], recipe: RecipeSettings) -> Network:
    """The network with random weights."""
    described = {**recipe.network, **network, "weights": "none"}
    return Network(IDENTITIES, options(NetworkOptions, described, "networks"))


def speed(network: Network, recipe: Recipe, device: torch.device) -> tuple[float, float]:
    """Images a second of training and of inference, on random images."""
    number = BATCHES * recipe.batch
    generator = torch.Generator().manual_seed(0)
    shape = (number, recipe.height, recipe.width, 3)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(number) % IDENTITIES
    *_, last = fit(network, images, labels, recipe, seed=0, device=device)
    extract(network, images, device=device).cpu()
    started = time.perf_counter()
    extract(network, images, device=device).cpu()
    return last.images_per_second, number / (time.perf_counter() - started)


def cells(costs: Costs, settings: Settings) -> pd.DataFrame:
    """A row for each network: label; parameters in millions and giga multiply-adds of one image
    under the paper's recipe, with what is more than the first row's; the paper's number; and
    for each data set at hand the images a second of training and inference, here.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipes = {
        name: settings.recipes[settings.datasets[name].recipes["plain"]]
        for name in settings.at_hand
    }
    paper = settings.recipes[costs.recipe]
    rows = []
    for row in track(costs.rows, "cost", console=Console(stderr=True)):
        network = built(settings.networks[row.network], paper)
        height, width = (paper.training[side] for side in ("height", "width"))
        classifier = sum(weight.numel() for weight in network.classifier.parameters())
        found = {
            "label": row.label,
            "parameters": (parameters(network) - classifier) / 1e6,
            "multiply-adds": multiply_adds(network, height, width) / 1e9,
            "paper": row.paper,
        }
        for name, recipe in recipes.items():
            training = options(Recipe, {**recipe.training, "epochs": 2}, f"recipes of {name}")
            network = built(settings.networks[row.network], recipe)
            found[f"{name} training"], found[f"{name} inference"] = speed(network, training, device)
        rows.append(found)
    frame = pd.DataFrame(rows).astype({"paper": float})
    more = frame["multiply-adds"] - frame["multiply-adds"].iloc[0]
    frame.insert(3, "more", more)
    return frame


def shown(frame: pd.DataFrame) -> page.Part:
    """As people read it."""
    forms = {
        "parameters": ("parameters, M", "{:.2f}"),
        "multiply-adds": ("multiply-adds, G", "{:.3f}"),
        "more": ("more than base, G", "{:+.3f}"),
        "paper": ("paper's, G", "{:.2f}"),
    }
    columns = [name for name in frame.columns if name != "label"]
    heads = [forms[name][0] if name in forms else f"{name}, images/s" for name in columns]
    lines = [
        page.Line(
            "",
            row["label"],
            [
                page.Cell(
                    DASH if pd.isna(row[name]) else forms.get(name, ("", "{:.0f}"))[1].format(row[name])
                )
                for name in columns
            ],
        )
        for _, row in frame.iterrows()
    ]
    return page.Part("", heads, lines)


def main() -> None:
    settings = load()
    costs = sheets(settings)["cost"]
    assert isinstance(costs, Costs)
    frame = cells(costs, settings)
    write_whole(TABLES / "cost.csv", frame.to_csv(index=False, float_format="%.4f"))


if __name__ == "__main__":
    with stage():
        main()
