"""Train one run under Ray Train -> runs/<key>: weights, the network's description, history.

    python -m pipeline.stages.train synthetic.base.quick.0

Checkpoints lie in `trainings/` of the storage, which is `build/` by default: one every
`checkpoint_minutes`, and one after the last epoch. A command that was killed resumes from the last
checkpoint when it is started again.
"""

from __future__ import annotations

from pipeline.cluster.environment import prepare
from pipeline.plan.plan import load_plan
from pipeline.plan.runs import check_prepared, parse_run
from pipeline.shell import command, parser
from pipeline.training.rehearsal import rehearse


def main() -> None:
    options = parser(__doc__, "pipeline.stages.train")
    options.add_argument("key", help="of the run: <data set>.<network>.<recipe>.<seed>")
    key = options.parse_args().key
    plan = load_plan()
    run = parse_run(key, plan.settings)
    check_prepared(run.dataset, plan.settings.recipes[run.recipe].size)
    prepare(plan.settings)
    failures = rehearse([key], plan)
    if failures:
        from pipeline.training.launch import record_failure

        record_failure(run, plan, failures[key])
    from pipeline.cluster.session import session
    from pipeline.training.worker import import_all

    with session(import_all) as ready:
        # MLflow and pandas take as long to import as Ray takes to start.
        from pipeline.training.launch import train

        train(run, plan, ready)


if __name__ == "__main__":
    command(main)
