"""Every MLflow call: what MLflow lacks of a training, an evaluation or a search is sent.

The files of a run are the truth, and MLflow shows them. Each `sync_...` function reads files, asks
the server what it holds, and sends the rest. So the functions may be called at any time, again and
again: by a training after each epoch, by a stage at its end, or by a person (`pipeline.sync`).

`server` finds the server and its runs, `recorder` bears a server that goes away. `training`,
`search` and `reproduction` send the three kinds of runs.
"""
