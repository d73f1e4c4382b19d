"""What late gradients cost: `python -m experiments.staleness`."""
