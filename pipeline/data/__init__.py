"""Prepared data sets: the reader of a source, and the split of a seed.

A new data set is a file in `ianet/datasets` and an entry in params.yaml. Nothing changes here.
"""
