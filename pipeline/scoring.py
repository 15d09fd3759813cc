"""Scores of a network on a prepared data set, by the protocol that the set comes with."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from ianet import retrieval
from ianet.cost import count_multiply_adds
from ianet.diagnostics import BlockDescription, describe_blocks
from ianet.features import extract
from ianet.network import Network
from ianet.network import load as load_network
from ianet.options import Cameras
from ianet.protocols import MEANS, TOP, score_queries
from ianet.reading import PackedImages
from pipeline.cluster import address
from pipeline.cluster.storage import Storage
from pipeline.data.cameras import number_cameras
from pipeline.data.splits import split_of_run
from pipeline.plan.records import read_description, read_table
from pipeline.plan.runs import PREPARED, prepared_files

BLOCK_IMAGES = 16  # queries in which blocks are described: images hardly differ


class Scores(NamedTuple):
    """Scores of each query that has a match, by its row in the prepared table.

    Attributes:
        cmc: (Q, ranks), whether a match has that rank or a better one.
        means: (Q, ...), further scores by the names of their means.
        queries: (Q, ...), person, matches and candidates, see `retrieval.count_candidates`.
        without_match: number of the queries without a match.
        cameras: see `ianet.options.Cameras`.
        blocks: what each inserted block does.
        multiply_adds: of a forward pass of an image, see `ianet.cost.count_multiply_adds`.
    """

    cmc: pd.DataFrame
    means: pd.DataFrame
    queries: pd.DataFrame
    without_match: int
    cameras: Cameras
    blocks: tuple[BlockDescription, ...] = ()
    multiply_adds: int | None = None

    @property
    def entropy(self) -> float | None:
        """Mean entropy of the relations of SIA, see `BlockDescription`; None without SIA."""
        entropies = [
            block.entropy
            for block in self.blocks
            if block.entropy is not None and block.name.endswith(".sia")
        ]
        return float(np.mean(entropies)) if entropies else None

    def summary(self) -> dict[str, float | None]:
        """Means over the queries, as fractions; null where the protocol does not define one."""
        top: dict[str, float | None] = {f"top-{n}": float(self.cmc[n].mean()) for n in TOP}
        return top | {
            name: float(self.means[name].mean()) if name in self.means else None for name in MEANS
        }


def score(
    network: nn.Module, prepared: Path, size: str, split: pd.Series, device: torch.device
) -> Scores:
    """Scores of a network on the query and gallery of a split.

    Args:
        network: gives features in evaluation mode, in which it is left, on the device.
        prepared: folder of the data set.
        size: of its images, height x width.
        split: see `pipeline.data.splits.split_of_run`.
        device: to extract and rank on.
    """
    table, description = read_table(prepared), read_description(prepared)
    cameras = number_cameras(table, description["cameras"])
    arguments: dict[str, Any] = {}
    for name in ("query", "gallery"):
        mask = (split == name).to_numpy(copy=True)
        packed = PackedImages(prepared / f"{size}.npy", mask)
        arguments[f"{name}_features"] = extract(network, packed, device=device)
        arguments[f"{name}_ids"] = table.person[mask].to_numpy()
        arguments[f"{name}_cameras"] = cameras[mask].to_numpy()
    cmc, means = score_queries(description["scoring"], **arguments)
    labels = {name: values for name, values in arguments.items() if "features" not in name}
    queries = retrieval.count_candidates(**labels).set_index(table.index[split == "query"])
    queries.insert(0, "person", labels["query_ids"])
    rows = queries.index[cmc.index]
    return Scores(
        cmc.set_index(rows),
        means.set_index(rows),
        queries.loc[rows],
        len(queries) - len(rows),
        description["cameras"],
    )


def assess(
    network: Network, url: str, place: str, size: str, seed: int, *, hold_out: bool
) -> Scores:
    """Scores of a trained network, what its blocks do, and its cost.

    The first GPU of this process computes, if there is one.

    Args:
        network: in evaluation mode.
        url: of the storage.
        place: of the data set there, see `Storage.fetch`.
        size: of its images, height x width.
        seed: of the run, for its split.
        hold_out: whether the held-out identities are scored.
    """
    prepared = Storage(url).fetch(place)
    split = split_of_run(read_table(prepared), seed, hold_out=hold_out)
    queries = PackedImages(prepared / f"{size}.npy", (split == "query").to_numpy(copy=True))
    blocks = tuple(describe_blocks(network, queries[:BLOCK_IMAGES]))
    multiply_adds = count_multiply_adds(network, *queries.shape[1:3])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scores = score(network, prepared, size, split, device)
    return scores._replace(blocks=blocks, multiply_adds=multiply_adds)


def score_run(
    folder: Path, dataset: str, size: str, storage: Storage, seed: int, *, hold_out: bool
) -> Scores:
    """Scores of a trained run with what its blocks do, computed by Ray or in this process.

    A cluster computes where one is named. A Ray of this machine that commands share, as in
    `make repro`, computes where the machine has a GPU: trainings use the others. Without a GPU such
    a Ray would only add the start of a process, and scores are equal. Otherwise this process
    computes, as no other command shares the GPU.

    Args:
        folder: of the run, with weights and description.
        dataset: that is scored, prepared.
        size: of its images, height x width.
        storage: where Ray finds the images.
        seed: of the run, for its split.
        hold_out: whether the held-out identities are scored.

    Raises:
        FileNotFoundError: the run was not trained.
        ConnectionError: Ray does not answer.
        ValueError: a node does not see the images, or the run is damaged.
    """
    network = load_network(folder)
    names = prepared_files(size)
    place = storage.publish(PREPARED / dataset, names)
    scores = partial(assess, network, storage.url, place, size, seed, hold_out=hold_out)
    if not (address.is_cluster() or (address.is_shared() and torch.cuda.is_available())):
        return scores()
    from pipeline.cluster.remote import compute  # a second that a scoring here need not spend

    root = Path(storage.path()) if storage.is_folder else None
    return compute(scores, root, [Path(place, name) for name in names])
