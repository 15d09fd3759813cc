"""One file for each stage of dvc.yaml, with the same name: a command line and little else.

`python -m pipeline.stages.train KEY` is what DVC runs. The work is done in the other folders.
"""
