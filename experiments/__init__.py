"""Logistic regression over simulated workers by compressed and late gradients: `python -m experiments`."""
