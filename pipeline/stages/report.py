"""results/report.html: the findings, every table and figure, and what was run, on one page.

The page shows what there is: all results at the end of `make repro`, and fewer before.
results/runs.csv has a line for each run.

The page fetches nothing, and links to the runs in MLflow. MLflow's run "reproduction" holds the
page with all tables and figures. Without MLflow the page has no links.
"""

from __future__ import annotations

from pathlib import Path

from ianet.files import write_whole
from pipeline.plan.dvc_yaml import REPORT, build_pipeline, list_outputs
from pipeline.plan.plan import Plan, load_plan, unique_runs
from pipeline.plan.runs import RECORD, RESULTS, Evaluation
from pipeline.report import curves, findings, overview, page, run_list, samples
from pipeline.shell import command, parser
from pipeline.tracking.recorder import send_safely
from pipeline.tracking.reproduction import find_run_pages, sync_reproduction


def find_complete(plan: Plan) -> list[str]:
    """The tables and figures whose files, and the scores that they show, are there."""
    stages = build_pipeline(plan)["stages"]
    complete = []
    for name in plan.experiments:
        outputs = list_outputs(stages[name])
        scores = [path for path in stages[name]["deps"] if path.startswith(f"{RESULTS}/")]
        if all(Path(path).exists() for path in (*outputs, *scores)):
            complete.append(name)
    return complete


def is_complete(evaluation: Evaluation) -> bool:
    """Whether the files of the run and of its scores are there."""
    return (evaluation.run.folder / RECORD).exists() and evaluation.scores.exists()


def main() -> None:
    parser(__doc__, "pipeline.stages.report").parse_args()
    full_plan = load_plan()
    plan = full_plan.limit(find_complete(full_plan))
    evaluations = list(filter(is_complete, plan.evaluations()))
    all_evaluations = full_plan.evaluations()
    complete = list(filter(is_complete, all_evaluations))
    foreign = plan.foreign_evaluations()
    runs = unique_runs(evaluations)
    labels = overview.find_row_labels(plan, runs)
    trained_runs = [run_list.read_run(run, complete) for run in runs]
    failures = run_list.find_failures(all_evaluations)
    links = find_run_pages(runs)
    tables = overview.build_score_sections(plan)
    sections = [section for section, _ in tables.values()]
    summary = findings.find(tables)
    first = overview.describe_runs(runs, unique_runs(foreign))
    text = page.to_html(
        "IANet, reproduced",
        [*sections, *overview.build_other_sections(plan, [*evaluations, *foreign])],
        overview=overview.summarize(plan.settings, evaluations, foreign),
        findings=summary._replace(sentences=[first, *summary.sentences]),
        samples=samples.find_samples(plan.settings),
        figures=overview.read_figures(plan),
        ranks=overview.read_ranked_lists(plan),
        searches=overview.read_search_summaries(plan),
        curves=curves.draw_curves(trained_runs),
        runs=[
            *overview.build_failed_rows(
                {run: reason for run, reason in failures.items() if run not in runs}
            ),
            *(
                overview.build_run_row(each, links.get(each.run), failures.get(each.run, ""))
                for each in trained_runs
            ),
            *overview.read_foreign_rows(foreign),
        ],
    )
    write_whole(REPORT, text)
    run_list.write_list(run_list.list_runs(trained_runs))
    # After the page, which is one of the files that are sent.
    send_safely(lambda: sync_reproduction(labels))


if __name__ == "__main__":
    command(main)
