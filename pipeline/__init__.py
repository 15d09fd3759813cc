"""The stages of dvc.yaml, and the only home of DVC, Ray, MLflow, YAML and paths.

config     params.yaml and experiments/*.yaml as validated values
plan       which runs are needed, their keys and files, the text of dvc.yaml
stages     one file for each stage: synthesize, prepare, pack, train, evaluate, table, ...
data       readers of data sets, and the split of a seed
training   one training: launch, workers, worker, checkpoints, progress
search     a search under Ray Tune: space, trial, results
cluster    Ray's start, its share for a training, the storage of its nodes, leases
report     tables, figures and the page of all

Commands of their own: `repro`, `new_dataset`, `import_results`, `sync`, `ui`, `clean`. `tracking`
has every call of MLflow, `scoring` the protocols, `served` the model in MLflow, `shell` what all
commands share.
"""

import signal
import sys

if sys.argv[:1] == ["-m"]:  # `python -m` imports a command, which `shell.command` will run
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports without a traceback
