"""The cells of a table of costs: what networks have, and how fast this machine is with them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch
from rich.progress import track

from ianet.cost import multiply_adds, parameters
from ianet.features import extract
from ianet.network import Network
from ianet.training.fit import fit
from ianet.training.recipe import Recipe
from pipeline.config.experiments import CostTable
from pipeline.config.settings import RecipeSettings, Settings, build_network, build_recipe
from pipeline.report.page import DASH, Cell, Panel, Section, TableRow

IDENTITIES = 751  # of Market-1501, for a classifier of a usual size
BATCHES = 3  # of an epoch that is timed
TIMING = {"epochs": 2, "warm_up": 0, "milestones": ()}
"""Options of a timed training: the first of two epochs warms up, the second is timed."""
FORMATS = {
    "parameters": ("parameters, M", "{:.2f}"),
    "multiply_adds": ("multiply-adds, G", "{:.3f}"),
    "more": ("more than base., G", "{:+.3f}"),
    "paper": ("paper's, G", "{:.2f}"),
}
"""Column to title and format; the other columns are speeds."""


def random_network(name: str, options: Mapping[str, Any], recipe: RecipeSettings) -> Network:
    """The network of an entry under `networks`, with random weights."""
    return Network(IDENTITIES, build_network(name, {**options, "weights": "none"}, recipe))


def timing_recipe(name: str, settings: RecipeSettings) -> Recipe:
    """The recipe of an entry under `recipes`, with the epochs that are timed."""
    training = {**settings.training, **TIMING}
    return build_recipe(name, settings.model_copy(update={"training": training}))


def measure_speed(network: Network, recipe: Recipe, device: torch.device) -> tuple[float, float]:
    """Images a second of training and of inference, on random images."""
    number = BATCHES * recipe.batch
    generator = torch.Generator().manual_seed(0)
    shape = (number, recipe.height, recipe.width, 3)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.arange(number) % IDENTITIES
    torch.compiler.reset()  # the compiler holds the code of a few networks of a process, not of all
    *_, last = fit(network, images, labels, recipe, seed=0, device=device)
    with torch.compiler.set_stance("force_eager"):  # as evaluations do
        extract(network, images, device=device).cpu()
        start = time.perf_counter()
        extract(network, images, device=device).cpu()
    return last.images_per_second, number / (time.perf_counter() - start)


def measure_costs(table: CostTable, settings: Settings) -> pd.DataFrame:
    """A row for each network.

    Returns:
        label; parameters, in millions; multiply_adds of one image, in billions; more, how many
        multiply-adds the first row lacks; paper, what the paper prints; and for each recipe in
        use the images a second of training and of inference, on this machine.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    counting = settings.recipes[table.recipe]
    height, width = (counting.training[side] for side in ("height", "width"))
    names = dict.fromkeys(settings.datasets[name].recipes["plain"] for name in settings.at_hand)
    rows: list[dict[str, Any]] = []
    for row in track(table.rows, table.title):
        options = settings.networks[row.network]
        network = random_network(row.network, options, counting)
        costs = {
            "label": row.label,
            "parameters": (parameters(network) - parameters(network.classifier)) / 1e6,
            "multiply_adds": multiply_adds(network, height, width) / 1e9,
        }
        costs["more"] = costs["multiply_adds"] - (rows or [costs])[0]["multiply_adds"]
        costs["paper"] = row.paper
        for name in names:
            recipe = settings.recipes[name]
            network = random_network(row.network, options, recipe)
            training, inference = measure_speed(network, timing_recipe(name, recipe), device)
            costs |= {f"{name} training": training, f"{name} inference": inference}
        rows.append(costs)
    return pd.DataFrame(rows).astype({"paper": float})


def build_panel(frame: pd.DataFrame) -> Panel:
    """The costs as people read them."""
    columns = [name for name in frame.columns if name != "label"]
    formats = {name: FORMATS.get(name, (f"{name}, images/s", "{:.0f}")) for name in columns}
    rows = [
        TableRow(
            "",
            row["label"],
            [
                Cell(DASH if pd.isna(row[name]) else form.format(row[name]))
                for name, (_, form) in formats.items()
            ],
        )
        for _, row in frame.iterrows()
    ]
    return Panel("", [title for title, _ in formats.values()], rows)


def build_section(name: str, table: CostTable, frame: pd.DataFrame) -> Section:
    """The costs as a page shows them.

    Args:
        name: of the table.
        table: what the experiment asks for.
        frame: see `measure_costs`.
    """
    note = (
        f"Counted for the recipe {table.recipe}; images a second of each recipe of a data set at "
        f"hand, through the functions that train and evaluate. {DASH} is not in the paper."
    )
    return Section(name, table.title, table.caption, [build_panel(frame)], note)
