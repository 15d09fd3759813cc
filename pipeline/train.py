"""Train one run under Ray Train -> runs/<run>: weights, the network's description, history.

    python -m pipeline.train synthetic base quick 0

Ray keeps a checkpoint of each epoch in build/training, outside DVC's outputs. A command that
was killed goes on from the last of them when it is started again.
"""

from __future__ import annotations

from pipeline import address, cluster
from pipeline.plan import Run, check_prepared, checked, load_plan
from pipeline.shell import only_one, run_parser, stage
from pipeline.storage import PROJECT, TRAINING


def main() -> None:
    arguments = vars(run_parser(__doc__).parse_args())
    plan = load_plan()
    run = checked(Run(**arguments), plan.settings)
    check_prepared(run.dataset, plan.settings.recipes[run.recipe].size)
    address.take(plan.settings)
    lock = PROJECT / TRAINING / f"{run.key}.lock"
    with only_one(lock, f"training {run.key}"), cluster.starting() as ready:
        # torch, torchvision and MLflow take as long to import as Ray takes to start.
        from pipeline import driver

        driver.train(run, plan, ready)


if __name__ == "__main__":
    with stage():
        main()
