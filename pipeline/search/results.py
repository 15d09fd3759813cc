"""The trials of a search as a table, as plots, and the best of them as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from ianet.drawing import svg
from ianet.escapes import to_csv
from pipeline.config.experiments import LogUniform, Search
from pipeline.config.settings import RecipeSettings
from pipeline.search import space

DONE, STOPPED, FAILED = "done", "stopped early", "failed"
SCORES = ("mAP", "top-1", "top-5", "top-10", "mINP", "loss")
LETTER = 0.065  # inches of a letter of a written value


def state_of(history: Sequence[Mapping[str, Any]], error: str, epochs: int) -> str:
    """How a trial ended: done, stopped early or failed."""
    if error:
        return FAILED
    return DONE if history and history[-1]["epoch"] == epochs else STOPPED


def table(trials: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each trial.

    Args:
        trials: the content of the progress of a search, see `pipeline.search.trial`.

    Returns:
        trial, its name; the values, with "null" for None; epoch, the last one; the scores after
        that epoch as fractions; seconds of training; state; error.

    Raises:
        ValueError: all trials failed.
    """
    rows = []
    for trial in trials:
        values, history = trial["values"], trial["history"]
        last = history[-1] if history else {}
        rows.append(
            {
                "trial": trial["trial"],
                **{name: "null" if value is None else value for name, value in values.items()},
                "epoch": int(last.get("epoch", 0)),
                **{name: last.get(name) for name in SCORES},
                "seconds": sum(report["seconds"] for report in history),
                "state": trial["state"],
                "error": trial["error"],
            }
        )
    frame = pd.DataFrame(rows)
    if (frame.state == FAILED).all():
        raise ValueError(f"all {len(frame)} trials failed, the first: {frame.error[0]}")
    return frame.astype(dict.fromkeys(SCORES, float))


def best_trial(trials: pd.DataFrame, search: Search) -> int:
    """The row of the trial with the best score after its last epoch, of those not stopped."""
    done = trials[trials.state == DONE]
    candidates = done if len(done) else trials[trials.state != FAILED]
    best: int = candidates[search.maximise].idxmax()  # type: ignore[assignment]  # a row's number
    return best


def summarise(trials: pd.DataFrame) -> str:
    """How trials ended, and why some failed."""
    counts = trials.state.value_counts()
    ends = ", ".join(f"{counts.get(state, 0)} {state}" for state in (DONE, STOPPED, FAILED))
    failed = trials[trials.state == FAILED]
    reasons = "".join(f"\n  trial {trial.trial}: {trial.error}" for trial in failed.itertuples())
    return f"{len(trials)} trials, {ends}{reasons}"


def write(folder: Path, search: Search, trials: pd.DataFrame) -> None:
    """Write the table and the plots to a folder."""
    (folder / "trials.csv").write_text(to_csv(trials))
    # A column of Parquet is of one type: values as 1.0 and "rsqrt_channels" are written out.
    options = space.parameter_space(search)
    mixed = [name for name in options if trials[name].map(type).nunique() > 1]
    trials.astype(dict.fromkeys(mixed, str)).to_parquet(folder / "trials.parquet")
    (folder / "sensitivity.svg").write_text(svg(sensitivity(trials, search)))
    (folder / "parallel.svg").write_text(svg(parallel_coordinates(trials, search)))


def write_best(
    target: Path, name: str, search: Search, network: Mapping[str, Any], recipe: RecipeSettings
) -> None:
    """The best configuration, as entries of params.yaml: the network, the recipe or both."""
    entries: dict[str, Any] = {}
    if any(option.startswith("network.") for option in search.space):
        entries["networks"] = {f"{search.network}-best": dict(network)}
    if any(option.startswith("training.") for option in search.space):
        content = recipe.model_dump(mode="json", exclude_none=True)
        entries["recipes"] = {f"{search.recipe}-best": content}
    head = f"# The best of search {name}, to adopt by hand in params.yaml.\n"
    target.write_text(head + yaml.safe_dump(entries, sort_keys=False))


def sensitivity(trials: pd.DataFrame, search: Search) -> Figure:
    """The score over each option: every trial, and at each number the mean of those not stopped."""
    options = list(space.parameter_space(search))
    good = trials[trials.state != FAILED]
    written = [name for name in options if not _is_number(good[name])]
    longest = max((good[name].astype(str).str.len().max() for name in written), default=0)
    # The panels keep their height above values that are written out, upright.
    size = (3.2 * len(options), 3.4 + LETTER * longest)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, len(options), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, options, strict=True):
        numeric = name not in written
        values = good[name] if numeric else good[name].astype(str)
        if numeric:
            whole = good.state == DONE
            means = good[search.maximise][whole].groupby(values[whole]).mean()
            axes.plot(means.index, means, linewidth=1, color="0.6")
        for state, marker in ((DONE, "o"), (STOPPED, "x")):
            rows = good.state == state
            if rows.any():
                axes.plot(values[rows], good[search.maximise][rows], marker, label=state, alpha=0.7)
        if isinstance(search.space[name], LogUniform):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())  # they would overlap
        if not numeric:
            axes.tick_params("x", rotation=90, labelsize=8)
        axes.set(xlabel=name.split(".", 1)[1])
        axes.grid(alpha=0.3)
    panels[0].set(ylabel=f"{search.maximise}, held out")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    panels[0].legend(fontsize=8)
    return figure


def parallel_coordinates(trials: pd.DataFrame, search: Search) -> Figure:
    """A line a trial through its value of each option, to its score, which also colours it."""
    options = [*space.parameter_space(search), search.maximise]
    figure = Figure(figsize=(2 + 1.7 * len(options), 3.6), layout="constrained")
    figure.suptitle(search.title, fontsize=11)
    axes = figure.subplots()
    good = trials[trials.state != FAILED].sort_values(search.maximise)
    heights = pd.DataFrame({name: _height(good[name], search, name) for name in options})
    for place, name in enumerate(options):
        axes.axvline(place, color="0.7", linewidth=1)
        marks = dict(zip(heights[name], good[name], strict=True))
        if _is_number(good[name]):
            marks = {end: marks[end] for end in (min(marks), max(marks))}
        for height, value in marks.items():
            axes.text(place + 0.02, height, space.show_value(value), fontsize=7)
    scores = good[search.maximise].to_numpy()
    shades = ScalarMappable(Normalize(scores.min(), scores.max()), "viridis")
    for points, colour in zip(heights.to_numpy(), shades.to_rgba(scores), strict=True):
        axes.plot(range(len(options)), points, color=tuple(colour))
    axes.set_xticks(range(len(options)), [name.split(".", 1)[-1] for name in options])
    axes.set_yticks([])
    axes.set(xlim=(-0.1, len(options) - 0.6))
    axes.spines[:].set_visible(False)
    figure.colorbar(shades, ax=axes, format=PercentFormatter(1, decimals=1), label=search.maximise)
    return figure


def _is_number(values: pd.Series) -> bool:
    return is_numeric_dtype(values) and not is_bool_dtype(values)


def _height(values: pd.Series, search: Search, name: str) -> pd.Series:
    """Where values stand on their axis of `parallel_coordinates`, 0 to 1."""
    if not _is_number(values):
        values = values.astype(str).astype("category").cat.codes
    elif isinstance(search.space.get(name), LogUniform):
        values = np.log(values)
    span = float(values.max() - values.min())
    return (values - values.min()) / span if span else values * 0 + 0.5
