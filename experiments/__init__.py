"""The main job, `python -m experiments`, and what the figures of the README are made by."""
