"""One training: `launch` leads it, `worker` trains under Ray Train, `progress` joins the two.

A change of `worker` retrains every run. A change of another file here retrains none.
"""
