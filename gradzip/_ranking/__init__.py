"""Algorithms and compressors, ranked by what the theorems predict of them."""
