"""Compressors, one a file: an array to a payload and back."""
