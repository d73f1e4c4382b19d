"""Schemes against each other at one fixed rule for the step: `python -m experiments.comparison`."""
