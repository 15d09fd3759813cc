"""Speed and memory of scoring, at three sizes.

    python benchmarks/evaluation.py [market1501] [msmt17] [large]

| size | queries | gallery | numbers of a feature |
|---|---|---|---|
| market1501 | 3,368 | 15,913 | 2,048 |
| msmt17 | 11,659 | 82,161 | 2,048 |
| large | 1,000 | 2,000,000 | 256 |

Ways to score the same features: `ianet.retrieval.evaluate`; the plain way, which sorts each row of
the distances (`score_by_sorting`, as torchreid's Python ranking does); and torchreid's compiled
ranking, where it is on the path. Its package on PyPI lacks it: in torchreid's repository, Cython
builds it in torchreid/metrics/rank_cylib (`python setup.py build_ext --inplace`), which PYTHONPATH
names then. At Market-1501's size only, re-ranking, and the plain way of that with whole N x N
matrices (`score_by_matrices`, as its authors' code does; at MSMT17's size each of them would take
35 GB). At the size `large`, `evaluate` alone: the plain way would take 24 GB.

Every case runs in turn with the bare matrix product of queries and gallery, by the same chunks and
with nothing done to it: seconds are the median of three turns (of one where it is long), memory the
peak above the features, which lie in memory. "ranking" is what a way takes beyond the product,
"times ours" that in parts of our ranking. On a CPU each has a process of its own; on a GPU, where
the features are then, only the ways of `ianet.retrieval` run. Prints a table and writes
benchmarks/evaluation.json, or evaluation-gpu.json.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from device import GPU, describe_machine, results
from machine import peak_bytes, reset_peak
from numpy.typing import NDArray
from rich.progress import track

from ianet.reranking import KReciprocal
from ianet.retrieval import BLOCK, CHUNK_BYTES, PAIR_BYTES, evaluate

LARGE = "large"
SIZES = {  # queries, gallery, people, numbers of a feature
    "market1501": (3_368, 15_913, 750, 2_048),
    "msmt17": (11_659, 82_161, 3_060, 2_048),
    LARGE: (1_000, 2_000_000, 20_000, 256),
}
CAMERAS = 6
SPREAD = 4  # of an identity's images, in parts of that of the identities
TURNS = 3
TORCHREID = "torchreid, compiled"
TORCHREID_QUERIES = 4_000  # at a time


class Case(NamedTuple):
    size: str
    features: str  # "trained": identities are clusters that overlap; "random": there are none
    way: str


def build_arguments(case: Case) -> list[torch.Tensor]:
    """The first six arguments of `evaluate`."""
    queries, gallery, people, numbers = SIZES[case.size]
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(people, numbers, generator=generator)
    arguments: list[torch.Tensor] = []
    for number in (queries, gallery):
        ids = torch.randint(people, (number,), generator=generator)
        features = torch.randn(number, numbers, generator=generator)
        if case.features == "trained":
            for part, identities in zip(features.split(4096), ids.split(4096), strict=True):
                part.mul_(SPREAD).add_(centres[identities])  # by parts: the peak is the scoring's
        arguments += [features, ids, torch.randint(CAMERAS, (number,), generator=generator)]
    return [arguments[place].to("cuda" if GPU else "cpu") for place in (0, 3, 1, 4, 2, 5)]


def multiply(query: torch.Tensor, gallery: torch.Tensor, *_: torch.Tensor) -> None:
    by_blocks = len(gallery) > 4 * BLOCK
    width = BLOCK if by_blocks else len(gallery)
    step = CHUNK_BYTES // ((2 * query.element_size() if by_blocks else PAIR_BYTES) * width)
    buffer = query.new_empty(step, width)
    for images in gallery.split(width):
        for rows in query.split(step):
            torch.mm(rows, images.T, out=buffer[: len(rows), : len(images)])
    if GPU:
        torch.cuda.synchronize()


def score_by_ianet(*arguments: torch.Tensor) -> float:
    return evaluate(*arguments).mAP


def score_reranked(*arguments: torch.Tensor) -> float:
    return evaluate(*arguments, reranking=KReciprocal()).mAP


def score_by_sorting(*arguments: torch.Tensor) -> float:
    query, gallery, *labels = (each.numpy() for each in arguments)
    query, gallery = (
        each / np.linalg.norm(each, axis=1, keepdims=True) for each in (query, gallery)
    )
    return _sort_and_score(1 - query @ gallery.T, *labels)


def score_by_torchreid(*arguments: torch.Tensor) -> float:
    from rank_cy import evaluate_cy

    query, gallery, *labels = (each.numpy() for each in arguments)
    query, gallery = (
        each / np.linalg.norm(each, axis=1, keepdims=True) for each in (query, gallery)
    )
    query_ids, gallery_ids, query_cameras, gallery_cameras = labels
    mAP = 0.0
    # It makes integers of the whole matrix, thrice: of all queries at MSMT17's size 7.7 GB each.
    for first in range(0, len(query), TORCHREID_QUERIES):
        rows = slice(first, first + TORCHREID_QUERIES)
        distances = 1 - query[rows] @ gallery.T
        _, score = evaluate_cy(
            distances, query_ids[rows], gallery_ids, query_cameras[rows], gallery_cameras, 50
        )
        mAP += score * len(distances) / len(query)
    return mAP


def score_by_matrices(*arguments: torch.Tensor) -> float:
    query, gallery, *labels = (each.numpy() for each in arguments)
    images = np.concatenate([query, gallery])
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    return _sort_and_score(_rerank_by_matrices(images, len(query), KReciprocal()), *labels)


def _sort_and_score(distances: NDArray[Any], *labels: NDArray[np.int64]) -> float:
    query_ids, gallery_ids, query_cameras, gallery_cameras = labels
    order = distances.argsort(1)
    precisions = []
    for row in range(len(distances)):
        ranked = order[row]
        same = gallery_ids[ranked] == query_ids[row]
        kept = ~(same & (gallery_cameras[ranked] == query_cameras[row]))
        matches = same[kept]
        if matches.any():
            ranks = np.flatnonzero(matches) + 1
            precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
    return float(np.mean(precisions))


def _rerank_by_matrices(
    images: NDArray[np.float32], queries: int, options: KReciprocal
) -> NDArray[np.float32]:
    size, k1 = len(images), options.k1
    distance = np.maximum(2 - 2 * images @ images.T, 0)
    distance /= distance.max(1, keepdims=True)
    order = distance.argsort(1)

    def reciprocal(image: int, k: int) -> NDArray[np.int64]:
        near = order[image, : k + 1]
        return near[(order[near, : k + 1] == image).any(1)]

    vectors = np.zeros_like(distance)
    for image in range(size):
        neighbours = reciprocal(image, k1)
        groups = [neighbours]
        for neighbour in neighbours:
            group = reciprocal(neighbour, round(k1 / 2))
            if len(np.intersect1d(group, neighbours)) > 2 / 3 * len(group):
                groups.append(group)
        members = np.unique(np.concatenate(groups))
        weights = np.exp(-distance[image, members])
        vectors[image, members] = weights / weights.sum()
    vectors = np.stack([vectors[order[row, : options.k2]].mean(0) for row in range(size)])
    columns = [np.flatnonzero(vectors[:, image]) for image in range(size)]
    jaccard = np.empty((queries, size), np.float32)
    for row in range(queries):
        overlap = np.zeros(size, np.float32)
        for column in np.flatnonzero(vectors[row]):
            others = columns[column]
            overlap[others] += np.minimum(vectors[row, column], vectors[others, column])
        jaccard[row] = 1 - overlap / (2 - overlap)
    final = (1 - options.weight) * jaccard + options.weight * distance[:queries]
    return final[:, queries:]


WAYS: dict[str, Callable[..., float]] = {
    "evaluate": score_by_ianet,
    "sorting": score_by_sorting,
    TORCHREID: score_by_torchreid,
    "evaluate, re-ranked": score_reranked,
    "re-ranked by matrices": score_by_matrices,
}
ON_GPU = ("evaluate", "evaluate, re-ranked")


def reset() -> int:
    """Return the bytes that this process holds, or the GPU for it; `peak` counts from there."""
    if GPU:
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    return reset_peak()


def peak() -> int:
    return torch.cuda.max_memory_allocated() if GPU else peak_bytes()


def measure(case: Case) -> dict[str, Any]:
    arguments = build_arguments(case)
    turns = TURNS if case.size != "msmt17" and case.way != "re-ranked by matrices" else 1
    few = [part[:size] for part, size in zip(arguments, (300, 2_000) * 3, strict=True)]
    WAYS[case.way](*few)  # to warm up
    multiply(*few)
    before, after, seconds, product_seconds, mAP = reset(), 0, [], [], 0.0
    for _ in range(turns):
        start = time.perf_counter()
        mAP = WAYS[case.way](*arguments)
        seconds.append(time.perf_counter() - start)
        after = after or peak()  # before the product takes memory, too
        start = time.perf_counter()
        multiply(*arguments)
        product_seconds.append(time.perf_counter() - start)
    return {
        **case._asdict(),
        "seconds": round(median(seconds), 3),
        "product": round(median(product_seconds), 3),
        "ranking": round(median(seconds) - median(product_seconds), 3),
        "GB": round((after - before) / 1e9, 2),
        "mAP": round(mAP, 5),
    }


def measure_alone(case: Case) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (case,))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", help=f"of {', '.join(SIZES)}; all if none is named")
    sizes = parser.parse_args().sizes or list(SIZES)
    if unknown := set(sizes) - set(SIZES):
        parser.error(f"{', '.join(unknown)}: choose of {', '.join(SIZES)}")
    ways = [way for way in WAYS if way != TORCHREID or importlib.util.find_spec("rank_cy")]
    if GPU:
        ways = list(ON_GPU)
    elif TORCHREID not in ways:
        print("torchreid's compiled ranking is not on the path: left out")
    cases = [
        Case(size, features, way)
        for size in sizes
        for features in ("trained", "random")
        for way in ways
        if size == "market1501" or way == "evaluate" or (size != LARGE and "re-ranked" not in way)
    ]
    rows = []
    for case in track(cases, "scoring"):
        rows.append((measure if GPU else measure_alone)(case))
    table = pd.DataFrame(rows)
    ranking = table.set_index(["size", "features", "way"])["ranking"]
    times = (ranking / ranking.xs("evaluate", level="way")).reindex(ranking.index)
    table["of the product"] = (table["ranking"] / table["product"]).round(2)
    table["times ours"] = times.round(1).to_numpy()
    print(table.to_markdown(index=False))
    content = {"machine": describe_machine(), "cases": table.to_dict("records")}
    results("evaluation").write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
