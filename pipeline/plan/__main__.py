"""Write dvc.yaml, and that of the searches, from params.yaml and experiments/.

python -m pipeline.plan            write both files
python -m pipeline.plan --check    fail where a file is not what would be written
"""

from __future__ import annotations

from pipeline.config.experiments import EXPERIMENTS
from pipeline.config.settings import SettingsError
from pipeline.plan.dvc_yaml import PIPELINE, is_stale, render, write
from pipeline.plan.plan import load_plan, unique_runs
from pipeline.shell import LOGS, command, lock_work, parser


def main() -> None:
    options = parser(__doc__, "pipeline.plan")
    options.add_argument("--check", action="store_true", help="write nothing, fail if stale")
    check = options.parse_args().check
    plan = load_plan()
    if not check:
        with lock_work(LOGS / "repro.lock", "making results in this folder"):
            write(plan)
        runs = len(unique_runs(plan.evaluations()))
        print(f"{PIPELINE}: {runs} runs for {len(plan.experiments)} tables and figures")
        return
    for path, text in render(plan).items():
        if is_stale(path, text):
            raise SettingsError(
                f"{path} is older than params.yaml or {EXPERIMENTS}/: run "
                "`python -m pipeline.plan`, then `dvc repro` again"
            )


if __name__ == "__main__":
    command(main)
