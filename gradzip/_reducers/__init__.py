"""Reducers, one per file. Only they and two wrappers communicate."""
