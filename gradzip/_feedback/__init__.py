"""Exchanges, one per file. They differ in what a worker remembers."""
