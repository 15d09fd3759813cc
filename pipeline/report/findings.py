"""The findings of all tables: what a reader of the page sees first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from ianet import drawing
from pipeline.report.cells import ENOUGH_SEEDS, LEVEL, find_gains, is_finding
from pipeline.report.page import Section

METRIC = "mAP"


class Findings(NamedTuple):
    """What came out.

    Attributes:
        sentences: for readers.
        unsure: the best of each table that is no finding.
        picture: the gains of all tables as SVG, or nothing.
    """

    sentences: list[str]
    unsure: list[str]
    picture: str


def find(tables: Mapping[str, tuple[Section, pd.DataFrame]]) -> Findings:
    """The findings of tables.

    Args:
        tables: name to section and cells, see `cells.build_section`.
    """
    sentences = []
    panels: dict[tuple[str, str], list[drawing.Gain]] = {}
    for dataset, gain in _collect_gains(tables):
        panels.setdefault((dataset, METRIC), []).append(gain)
    lines = [gain for gains in panels.values() for gain in gains]
    certain = [gain for gain in lines if gain.finding]
    seeds = max((frame.seeds.max() for _, frame in tables.values()), default=0)
    if lines and seeds < ENOUGH_SEEDS:
        sentences.append(
            f"Comparisons with another network, in {METRIC}: {len(lines)}. None is a finding, as a "
            f"finding needs {ENOUGH_SEEDS} seeds."
        )
    elif lines:
        names = "; ".join(f"{gain.label} {gain.mean:+z.1f}" for gain in certain)
        sentences.append(
            f"Comparisons with another network, in {METRIC}: {len(lines)}. Findings, with "
            f"{ENOUGH_SEEDS} seeds or more and p < {LEVEL} after Holm's correction for a table: "
            + (f"{names}." if names else "none.")
        )
    sentences += _describe_largest(tables)
    bests = [best for section, frame in tables.values() for best in _find_best(section, frame)]
    sentences += [f"{best.text}, a finding over {best.against}." for best in bests if best.against]
    unsure = [best.text for best in bests if not best.against]
    return Findings(sentences, unsure, drawing.svg(drawing.draw_forest(panels)) if panels else "")


def _collect_gains(
    tables: Mapping[str, tuple[Section, pd.DataFrame]],
) -> list[tuple[str, drawing.Gain]]:
    """The gains of all tables with their data sets, each comparison once.

    A network may stand in several tables, in some with fewer seeds: the gain of the most is taken.
    """
    gains: dict[tuple[str, str, frozenset[str]], drawing.Gain] = {}
    for section, frame in tables.values():
        for (dataset, runs, against), gain in find_gains(frame[frame.metric == METRIC]).items():
            label = f"{section.title}: {gain.label}"
            key = dataset, against, frozenset(runs.split())
            gains.setdefault(key, gain._replace(label=label))
    return [
        (dataset, gain)
        for (dataset, against, runs), gain in gains.items()
        if not any(
            (dataset, against) == (other, rival) and runs < more for other, rival, more in gains
        )
    ]


def _describe_largest(tables: Mapping[str, tuple[Section, pd.DataFrame]]) -> list[str]:
    """A sentence for each data set: the largest gain, of rows with enough seeds where there are."""
    enough = {
        name: (section, frame[frame.seeds >= ENOUGH_SEEDS])
        for name, (section, frame) in tables.items()
    }
    gains: dict[str, list[drawing.Gain]] = {}
    for rows in (tables, enough):
        groups: dict[str, list[drawing.Gain]] = {}
        for dataset, gain in _collect_gains(rows):
            groups.setdefault(dataset, []).append(gain)
        gains |= groups
    sentences = []
    for dataset, group in gains.items():
        best = max(group, key=lambda gain: gain.mean)
        sentences.append(
            f"The largest gain on {dataset}: {best.label}, {best.mean:+.1f} {METRIC} "
            f"[{best.low:+.1f}, {best.high:+.1f}], {'a' if best.finding else 'no'} finding."
        )
    return sentences


class Best(NamedTuple):
    """The network of a table with the best score.

    Attributes:
        text: the table, its data set, the network and the score.
        against: over which network its gain is a finding; none if the gain is not.
    """

    text: str
    against: str


def _find_best(section: Section, frame: pd.DataFrame) -> list[Best]:
    """The best of a table, for each data set on which several networks were run."""
    scores = frame[(frame.metric == METRIC) & frame.ours.notna()]
    bests = []
    for dataset, rows in scores.groupby("dataset", sort=False):
        if len(rows) > 1:
            best = rows.sort_values("ours").iloc[-1]
            label = f"{best.group}: {best.label}" if best.group else best.label
            text = f"{section.title} on {dataset}: {label}, {best.ours:.1f} % {METRIC}"
            bests.append(Best(text, best.against if is_finding(best) else ""))
    return bests
