"""Real bytes over real links: `python -m experiments.network --help`."""
