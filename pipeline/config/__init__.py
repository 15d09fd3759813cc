"""What may be chosen: params.yaml (`settings`) and experiments/*.yaml (`experiments`).

Both files become validated, frozen values. A new option is a new field here. Nothing in this folder
imports torch, Ray, DVC or MLflow.
"""
