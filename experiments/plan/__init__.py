"""Which scheme for which network: `python -m experiments.plan --help`."""
