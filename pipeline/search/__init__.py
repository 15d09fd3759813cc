"""A search: `space` says what is tried, `trial` trains under Ray Tune, `results` writes files.

A new kind of choice is a new class in `pipeline.config.experiments` and a case in `space`.
"""
