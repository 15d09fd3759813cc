"""Which runs the tables and figures need, and the text of dvc.yaml.

`runs` names a run and its files, `plan` chooses the runs, `dvc_yaml` writes the stages, and
`sources` says what each of them depends on. A new kind of stage is a new function in `dvc_yaml`.
"""
