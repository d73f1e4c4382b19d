"""A transformer that learns from late gradients: `python -m experiments.late_training`."""
