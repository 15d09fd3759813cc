"""Readers of data sets, one file each; `listing` describes a reader."""
