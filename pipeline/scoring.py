"""Scores of a network on a prepared data set, by the protocol that the set comes with."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from ianet import images, retrieval, single_shot
from ianet.features import extract
from ianet.network import Network
from ianet.receptive import relation_entropy
from pipeline import address
from pipeline.parts import part_of
from pipeline.plan import DESCRIPTION, TABLE, files_of
from pipeline.storage import Storage

RANKS = np.arange(1, 51)
TOP = (1, 5, 10)
ENTROPY_IMAGES = 16  # queries over which it is averaged: it hardly differs between images
MEANS = {"mAP": "average_precision", "mINP": "inverse_negative_penalty"}


class Scored(NamedTuple):
    """CMC (Q, ranks), and further scores of each query that has a match, by its row in the prepared
    table; how many have none; the entropy of the rows of S in parts of a uniform row's, where
    asked, None without SIA.
    """

    cmc: pd.DataFrame
    means: pd.DataFrame
    without_match: int = 0
    entropy: float | None = None

    def summary(self) -> dict[str, float | None]:
        """Means over the queries, as fractions; null where the protocol does not define one."""
        top: dict[str, float | None] = {f"top-{n}": float(self.cmc[n].mean()) for n in TOP}
        return top | {
            name: float(self.means[name].mean()) if name in self.means else None for name in MEANS
        }


def ranking(**arguments: Any) -> Scored:
    """By `ianet.retrieval`."""
    queries = retrieval.per_query(**arguments)
    cmc = queries.first_rank.to_numpy()[:, None] <= RANKS
    means = {name: queries[column] for name, column in MEANS.items()}
    return Scored(pd.DataFrame(cmc, queries.index, RANKS), pd.DataFrame(means))


def single_gallery_shot(**arguments: Any) -> Scored:
    """By `ianet.single_shot`, which defines CMC only."""
    cmc = single_shot.per_query(**arguments, max_rank=len(RANKS))
    return Scored(cmc, pd.DataFrame(index=cmc.index))


SCORINGS = {"ranking": ranking, "single_shot": single_gallery_shot}
"""By the name that the reader gives, see `ianet.datasets.listing.Listing`."""


def scored(
    network: nn.Module, prepared: Path, size: str, part: pd.Series, device: torch.device
) -> Scored:
    """Scores of a network on what `part` calls query and gallery.

    Args:
        network: gives features in evaluation mode, in which it is left, on the device.
        prepared: folder of the data set.
        size: of its images, height x width.
        part: see `pipeline.parts.part_of`.
        device: to extract and rank on.
    """
    table = pd.read_parquet(prepared / TABLE)
    arguments: dict[str, Any] = {}
    for name in ("query", "gallery"):
        mask = (part == name).to_numpy(copy=True)
        packed = images.load(prepared / f"{size}.npy", mask)
        arguments[f"{name}_features"] = extract(network, packed, device=device)
        arguments[f"{name}_ids"] = table.person[mask].to_numpy()
        arguments[f"{name}_cameras"] = table.camera[mask].to_numpy()
    description = json.loads((prepared / DESCRIPTION).read_text())
    found = SCORINGS[description["scoring"]](**arguments)
    queries = table.index[part == "query"]
    rows = queries[found.cmc.index]
    return Scored(found.cmc.set_index(rows), found.means.set_index(rows), len(queries) - len(rows))


def assessed(
    network: Network, place: str, size: str, storage: Storage, seed: int, *, hold_out: bool
) -> Scored:
    """Scores of a trained network and its entropy, computed on the cluster if one is named.

    Args:
        network: in evaluation mode.
        place: of the data set, as `Storage.shared` returns it.
        size: of its images, height x width.
        storage: where the nodes find them.
        seed: of the run, for its split.
        hold_out: whether to score on the held-out identities.

    Raises:
        ConnectionError: the cluster cannot be reached.
        ValueError: a node of it does not see the images.
    """
    assess = partial(_assess, network, storage.url, place, size, seed, hold_out)
    if not address.elsewhere():
        return assess()
    from pipeline import cluster  # a second that an evaluation here need not spend

    seen = [Path(place, name) for name in files_of(size)] if storage.is_folder else []
    return cluster.computed(assess, *seen)


def _assess(network: Network, url: str, place: str, size: str, seed: int, hold_out: bool) -> Scored:
    torch.set_flush_denormal(True)  # see docs/performance.md
    prepared = Storage(url).fetched(place)
    part = part_of(pd.read_parquet(prepared / TABLE), seed, hold_out=hold_out)
    queries = images.load(prepared / f"{size}.npy", (part == "query").to_numpy(copy=True))
    entropy = relation_entropy(network, queries[:ENTROPY_IMAGES])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return scored(network, prepared, size, part, device)._replace(entropy=entropy)
