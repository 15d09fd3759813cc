"""What networks score over what they cost, for the page."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from ianet import drawing
from pipeline.config.experiments import CostTable
from pipeline.config.settings import Settings, build_network
from pipeline.plan.records import read_scores
from pipeline.plan.runs import Evaluation
from pipeline.report.page import Section

METRIC = "mAP"
CAPTION = (
    "The mean over the seeds. Multiply-adds are those of the backbone and the size of the runs. "
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
        left out, as is a network of which a file of scores has no multiply-adds.
    """
    points: dict[tuple[str, str, str], list[tuple[int | None, float]]] = {}
    for evaluation in evaluations:
        dataset, name, recipe, _ = evaluation.run
        scores = read_scores(evaluation)
        if evaluation.is_own and scores[METRIC] is not None:
            point = scores["multiply_adds"], 100 * scores[METRIC]
            points.setdefault((dataset, recipe, name), []).append(point)
    panels: dict[str, list[drawing.Cost]] = {}
    for row in table.rows:
        for (dataset, recipe, name), pairs in points.items():
            operations = [count / 1e9 for count, _ in pairs if count is not None]
            if name == row.network and len(operations) == len(pairs):
                options = build_network(name, settings.networks[name], settings.recipes[recipe])
                title = f"{dataset}, recipe {recipe}, {options.backbone}"
                score = fmean(score for _, score in pairs)
                cost = drawing.Cost(row.label, fmean(operations), score)
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
