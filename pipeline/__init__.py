"""The stages of the pipeline: what DVC runs."""

import gc

# Imports of torch, torchvision, MLflow and Ray make a million objects that stay for ever. Walking
# over them again and again took a tenth of the start-up of every stage and worker.
gc.set_threshold(100_000, 10, 10)
