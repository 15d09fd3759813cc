"""Ranked lists of networks: the queries that each of them mends and spoils most."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from html import escape
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from ianet import drawing
from ianet.features import extract
from ianet.images import load as load_images
from ianet.network import load as load_network
from ianet.ranks_page import LEGEND, LIST_STYLE, Thumbnail, draw_thumbnail, write_list
from pipeline.config.experiments import RankedLists
from pipeline.config.settings import Settings, SettingsError
from pipeline.data.cameras import number_cameras
from pipeline.data.splits import split_of_run
from pipeline.plan.plan import own_evaluation
from pipeline.plan.records import read_description, read_queries, read_table
from pipeline.plan.runs import Run
from pipeline.report.page import svg_element

CPU = torch.device("cpu")


class ScoredImages(NamedTuple):
    """The queries and the gallery of a run.

    Attributes:
        queries, gallery: rows of the prepared table, with path, person and camera.
        pixels: path to the image, (height, width, 3) uint8.
        candidates: (queries, gallery), whether a pair counts, see `number_cameras`.
        same: (queries, gallery), whether both show one person.
    """

    queries: pd.DataFrame
    gallery: pd.DataFrame
    pixels: dict[str, NDArray[np.uint8]]
    candidates: NDArray[np.bool_]
    same: NDArray[np.bool_]


def read_images(run: Run, settings: Settings) -> ScoredImages:
    """The queries and the gallery on which a run is scored.

    Raises:
        SettingsError: the protocol of the data set defines no ranking of the whole gallery.
    """
    description = read_description(run.prepared)
    if description["scoring"] != "ranking":
        raise SettingsError(f"the protocol of {run.dataset} ranks no whole gallery: delete ranks")
    recipe = settings.recipes[run.recipe]
    table = read_table(run.prepared)
    split = split_of_run(table, run.seed, hold_out=recipe.hold_out)
    queries, gallery = (table[split == name] for name in ("query", "gallery"))
    mask = split.isin(["query", "gallery"]).to_numpy(copy=True)
    images = load_images(run.prepared / f"{recipe.size}.npy", mask).numpy()
    same = queries.person.to_numpy()[:, None] == gallery.person.to_numpy()
    codes = number_cameras(table, description["cameras"])
    camera = codes[queries.index].to_numpy()[:, None] == codes[gallery.index].to_numpy()
    pixels = dict(zip(table.path[mask], images, strict=True))
    return ScoredImages(queries, gallery, pixels, ~(same & camera), same)


def measure_distances(run: Run, images: ScoredImages) -> NDArray[np.float32]:
    """Cosine distances of queries and gallery by a trained run, (queries, gallery)."""
    network = load_network(run.folder)
    features = [
        F.normalize(
            extract(
                network,
                torch.from_numpy(np.stack([images.pixels[path] for path in rows.path])),
                device=CPU,
            )
        )
        for rows in (images.queries, images.gallery)
    ]
    return (1 - features[0] @ features[1].T).numpy()


def choose_queries(before: pd.Series, after: pd.Series, count: int) -> tuple[list[int], list[int]]:
    """The queries whose score rises most, and those where the score falls most.

    Args:
        before, after: scores by query.
        count: at most so many of each.

    Returns:
        Queries, the largest change first; equal changes in the order of the queries.
    """
    change = after - before
    rises = change[change > 0].sort_values(ascending=False, kind="stable")
    falls = change[change < 0].sort_values(kind="stable")
    return rises.index[:count].tolist(), falls.index[:count].tolist()


def rank_neighbours(
    distances: NDArray[np.float32], place: int, images: ScoredImages, count: int
) -> pd.DataFrame:
    """The nearest images of a query that count, as rows of `ianet.searching.search`.

    Args:
        distances: see `measure_distances`.
        place: of the query.
        images: queries and gallery.
        count: of neighbours.
    """
    candidates = np.flatnonzero(images.candidates[place])
    nearest = candidates[np.argsort(distances[place, candidates], kind="stable")[:count]]
    rows = images.gallery.iloc[nearest]
    return pd.DataFrame(
        {
            "rank": np.arange(1, len(nearest) + 1),
            "path": rows.path.to_numpy(),
            "distance": distances[place, nearest],
            "person": rows.person.astype(str).to_numpy(),
            "right": images.same[place, nearest],
        }
    )


def build_fragment(lists: RankedLists, runs: Sequence[Run], settings: Settings) -> str:
    """The lists and the histograms as HTML, to be put into a page.

    The lists of the first network are open. Those of the others are folded.

    Args:
        lists: what is shown.
        runs: of `networks` and, last, of `against`, trained and scored.
        settings: of params.yaml.
    """
    *networks, against = runs
    images = read_images(against, settings)
    distances = {run: measure_distances(run, images) for run in (against, *networks)}
    scores = {run: read_queries(own_evaluation(run)).mAP for run in (against, *networks)}

    @cache
    def thumbnail(path: str) -> tuple[str, str]:
        return draw_thumbnail(path, lambda path: Image.fromarray(images.pixels[path]))

    panels = {
        run.network: (
            values[images.same & images.candidates],
            values[~images.same],
        )
        for run, values in distances.items()
    }
    region = escape(f"Distances of pairs, {lists.title}")
    parts = [
        f"<style>{LIST_STYLE}</style>\n",
        f'<figure aria-label="{region}"><div role="region" aria-label="{region}">',
        svg_element(drawing.svg(drawing.draw_pair_distances(panels))),
        f"</div></figure>\n<p>{LEGEND} The number is the distance, from 0 to 2.</p>\n",
    ]
    for place, run in enumerate(networks):
        name = escape(run.network)
        parts.append(f"<details{' open' if place == 0 else ''}><summary>{name}</summary>\n")
        selection = choose_queries(scores[against], scores[run], lists.queries)
        for title, queries in zip(("raises", "lowers"), selection, strict=True):
            parts.append(f"<h3>{name} {title} the average precision</h3>\n")
            for query in queries:
                pair = {each: distances[each] for each in (against, run)}
                parts += _write_query(query, pair, scores, images, lists.neighbours, thumbnail)
        parts.append("</details>\n")
    return "".join(parts)


def _write_query(
    query: int,
    distances: dict[Run, NDArray[np.float32]],
    scores: dict[Run, pd.Series],
    images: ScoredImages,
    count: int,
    thumbnail: Thumbnail,
) -> list[str]:
    place = images.queries.index.tolist().index(query)
    row = images.queries.iloc[place].to_dict()
    name = f"Person {row['person']}, camera {row['camera']}"
    parts = [f"<h4>{escape(name)}</h4>\n"]
    for run, values in distances.items():
        neighbours = rank_neighbours(values, place, images, count)
        parts.append(
            f"<p>{escape(run.network)}: average precision {100 * scores[run][query]:.1f} %</p>\n"
        )
        parts.append(write_list(row["path"], name, neighbours, thumbnail))
    return parts
