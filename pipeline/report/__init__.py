"""Tables, figures and results/report.html, from the files of evaluations.

A new look of a table is a change of `page`; new columns are a change of `cells`.
"""
