"""A parameter server in real processes: `python -m experiments.parameter_server`."""
