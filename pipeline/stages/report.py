"""results/report.html: the findings, every table and figure, and what was run, on one page.

results/runs.csv has a line for each run.

The page fetches nothing, and links to the runs in MLflow. MLflow's run "reproduction" holds the
page with all tables and figures. Without MLflow the page has no links.
"""

from __future__ import annotations

from ianet.files import write_whole
from pipeline.plan.dvc_yaml import REPORT
from pipeline.plan.plan import load_plan, unique_runs
from pipeline.report import findings, overview, page, run_list
from pipeline.shell import command, parser
from pipeline.tracking.recorder import Recorder
from pipeline.tracking.reproduction import run_pages, sync_reproduction


def main() -> None:
    parser(__doc__, "pipeline.stages.report").parse_args()
    plan = load_plan()
    evaluations, foreign = plan.evaluations(), plan.foreign_evaluations()
    runs = unique_runs(evaluations)
    labels = overview.row_labels(plan, runs)
    trained = [run_list.read_run(run, evaluations) for run in runs]
    links = run_pages(runs)
    tables = overview.score_sections(plan)
    sections = [section for section, _ in tables.values()]
    text = page.to_html(
        "IANet, reproduced",
        [*sections, *overview.other_sections(plan)],
        overview=overview.summarize(plan.settings, evaluations, foreign),
        findings=findings.find(tables),
        figures=overview.figure_pictures(plan),
        ranks=overview.ranked_lists(plan),
        runs=[
            *(overview.run_row(each, links.get(each.run)) for each in trained),
            *overview.foreign_rows(foreign),
        ],
    )
    write_whole(REPORT, text)
    run_list.write_list(trained)
    # After the page, which is one of the files that are sent.
    Recorder(lambda _: sync_reproduction(labels)).send_now(None)


if __name__ == "__main__":
    command(main)
