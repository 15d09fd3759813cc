"""Pictures of results."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter


def cmc_curve(cmc: Sequence[float], title: str) -> Figure:
    """The cumulative matching characteristic; `cmc` holds fractions, rank-1 first."""
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(cmc) + 1), cmc)
    axes.set(title=title, xlabel="rank", ylabel="queries matched", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    return figure
