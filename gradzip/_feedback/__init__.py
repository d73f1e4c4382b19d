"""Exchanges, one a file: what a worker remembers."""
