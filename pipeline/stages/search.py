"""A search of experiments/ -> results/searches/<name>: the trials, the best one, its scores.

    python -m pipeline.stages.search sigma

Ray Tune runs as many trials at a time as Ray holds. Each trial is a whole training with one worker,
without the held-out identities and scored on those. The best configuration is then trained on all
training identities and scored once, on test. `Ctrl-C` stops all; the same command resumes, and
repeats no finished trial.
"""

from __future__ import annotations

from pipeline.cluster.environment import prepare
from pipeline.config.experiments import SEARCH_PREFIX
from pipeline.plan.plan import load_plan
from pipeline.plan.runs import check_prepared
from pipeline.shell import command, parser
from pipeline.training.rehearsal import rehearse


def main() -> None:
    options = parser(__doc__, "pipeline.stages.search")
    options.add_argument("name", help="experiments/search_<name>.yaml")
    name = options.parse_args().name
    plan = load_plan()
    search = plan.search(name)
    check_prepared(search.dataset, plan.settings.recipes[search.recipe].size)
    prepare(plan.settings)
    for failure in rehearse([SEARCH_PREFIX + name], plan).values():
        raise failure
    from pipeline.cluster.session import session
    from pipeline.training.worker import import_all

    with session(import_all) as ready:
        # Ray Tune, MLflow and pandas take as long to import as Ray takes to start.
        from pipeline.search.run import run_search

        print(run_search(name, plan, ready))


if __name__ == "__main__":
    command(main)
