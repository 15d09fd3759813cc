"""One training: `launch` leads it, `workers` starts what computes, `worker` computes.

`progress` joins those who compute and who lead. `checkpoints` is what a training resumes from. A
change of `worker` retrains every run. A change of another file here retrains none.
"""
