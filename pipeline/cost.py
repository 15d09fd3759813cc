"""What each network costs -> results/tables/<name>.csv, .md, .tex and .html.

    python -m pipeline.cost cost

Parameters and multiply-adds as the paper's recipe has them, beside the paper's numbers; and for
each data set at hand what this machine does with them: images a second of training and of
inference, through the same functions that train and evaluate.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import pandas as pd
import torch
from rich.progress import track

from ianet.cost import multiply_adds, parameters
from ianet.features import extract
from ianet.network import Network, NetworkOptions
from ianet.training import Recipe, fit
from pipeline import page
from pipeline.experiments import Costs
from pipeline.page import DASH
from pipeline.plan import TABLES, load_plan
from pipeline.settings import RecipeSettings, Settings, options
from pipeline.shell import stage

IDENTITIES = 751  # of Market-1501, for a classifier as large as one really is
BATCHES = 3  # of an epoch that is timed
TIMED = {"epochs": 2, "warm_up": 0, "milestones": ()}


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
    torch.compiler.reset()  # it compiles a code for a few networks in a process, not for all
    network.compile_blocks()  # as trainings do
    *_, last = fit(network, images, labels, recipe, seed=0, device=device)
    with torch.compiler.set_stance("force_eager"):  # as evaluations do
        extract(network, images, device=device).cpu()
        started = time.perf_counter()
        extract(network, images, device=device).cpu()
    return last.images_per_second, number / (time.perf_counter() - started)


def cells(costs: Costs, settings: Settings) -> pd.DataFrame:
    """A row for each network.

    Returns:
        label; parameters, in millions; multiply_adds of one image, in billions, how many are
        more than the first row's, and paper, what the paper prints; and for each recipe in use
        the images a second of training and of inference, on this machine.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    counted = settings.recipes[costs.recipe]
    timed = dict.fromkeys(settings.datasets[name].recipes["plain"] for name in settings.at_hand)
    rows: list[dict[str, Any]] = []
    for row in track(costs.rows, costs.title):
        network = built(settings.networks[row.network], counted)
        height, width = (counted.training[side] for side in ("height", "width"))
        found = {
            "label": row.label,
            "parameters": (parameters(network) - parameters(network.classifier)) / 1e6,
            "multiply_adds": multiply_adds(network, height, width) / 1e9,
        }
        found["more"] = found["multiply_adds"] - (rows or [found])[0]["multiply_adds"]
        found["paper"] = row.paper
        for name in timed:
            recipe = settings.recipes[name]
            # The second of two epochs is timed, the first warms up.
            training = options(Recipe, {**recipe.training, **TIMED}, f"recipes.{name}")
            network = built(settings.networks[row.network], recipe)
            speeds = speed(network, training, device)
            found |= {f"{name} training": speeds[0], f"{name} inference": speeds[1]}
        rows.append(found)
    return pd.DataFrame(rows).astype({"paper": float})


def shown(frame: pd.DataFrame) -> page.Part:
    """As people read it."""
    forms = {
        "parameters": ("parameters, M", "{:.2f}"),
        "multiply_adds": ("multiply-adds, G", "{:.3f}"),
        "more": ("more than base., G", "{:+.3f}"),
        "paper": ("paper's, G", "{:.2f}"),
    }
    columns = [name for name in frame.columns if name != "label"]
    head = {name: forms.get(name, (f"{name}, images/s", "{:.0f}")) for name in columns}
    lines = [
        page.Line(
            "",
            row["label"],
            [
                page.Cell(DASH if pd.isna(row[name]) else head[name][1].format(row[name]))
                for name in columns
            ],
        )
        for _, row in frame.iterrows()
    ]
    return page.Part("", [title for title, _ in head.values()], lines)


def section(name: str, costs: Costs, frame: pd.DataFrame) -> page.Section:
    """The cells as a page shows them."""
    note = (
        f"Counted for the recipe {costs.recipe}; images a second of each recipe of a data set at "
        f"hand, through the functions that train and evaluate. {DASH} is not in the paper."
    )
    return page.Section(name, costs.title, costs.caption, [shown(frame)], note)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.cost", description=__doc__)
    parser.add_argument("name", help="of a file in experiments/")
    name = parser.parse_args().name
    torch.set_flush_denormal(True)  # as trainings and evaluations do
    plan = load_plan()
    costs = plan.sheet(name, Costs)
    frame = cells(costs, plan.settings)
    page.write(section(name, costs, frame), TABLES, frame)


if __name__ == "__main__":
    with stage():
        main()
