"""Reducers, one a file: the only place with collectives."""
