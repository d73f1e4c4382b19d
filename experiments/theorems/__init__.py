"""The theorems beside runs, which is the main job: `python -m experiments`."""
