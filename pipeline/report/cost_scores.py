"""What networks score over what they cost, for the page."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from ianet import drawing
from pipeline.config.experiments import CostTable
from pipeline.config.settings import Settings
from pipeline.plan.records import read_scores
from pipeline.plan.runs import Evaluation
from pipeline.report.costs import build_untrained, count_operations
from pipeline.report.page import Section

METRIC = "mAP"
CAPTION = (
    "The mean over the seeds. Multiply-adds are counted for the backbone and the size of the runs. "
    "The labels stand in the order of the scores."
)


def join_scores(
    table: CostTable, evaluations: Iterable[Evaluation], settings: Settings
) -> dict[str, list[drawing.Cost]]:
    """Costs and scores of the networks that a table of costs names and that were scored.

    Args:
        table: whose labels the networks have.
        evaluations: with scores. Those across domains are left out.
        settings: of params.yaml.

    Returns:
        Networks by data set, recipe and backbone. A network without another to compare with is
        left out.
    """
    scores: dict[tuple[str, str, str], list[float]] = {}
    for evaluation in evaluations:
        dataset, name, recipe_name, _ = evaluation.run
        score = read_scores(evaluation)[METRIC]
        if evaluation.is_own and score is not None:
            scores.setdefault((dataset, recipe_name, name), []).append(100 * score)
    panels: dict[str, list[drawing.Cost]] = {}
    for row in table.rows:
        for (dataset, recipe_name, name), values in scores.items():
            if name == row.network:
                recipe = settings.recipes[recipe_name]
                network = build_untrained(name, recipe, settings)
                cost = drawing.Cost(row.label, count_operations(network, recipe), fmean(values))
                title = f"{dataset}, recipe {recipe_name}, {network.options.backbone}"
                panels.setdefault(title, []).append(cost)
    return {title: costs for title, costs in panels.items() if len(costs) > 1}


def add_picture(
    section: Section, table: CostTable, evaluations: Iterable[Evaluation], settings: Settings
) -> Section:
    """The section of a table of costs with scores over costs, if there are any.

    Args:
        section: of the table.
        table, evaluations, settings: of `join_scores`.
    """
    panels = join_scores(table, evaluations, settings)
    if not panels:
        return section
    return section._replace(
        picture=drawing.svg(drawing.draw_scores_over_costs(panels, METRIC)),
        picture_name=f"{METRIC} over multiply-adds",
        picture_caption=CAPTION,
    )
