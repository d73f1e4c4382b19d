"""Computations in a form that a platform likes, each beside its plain form."""
