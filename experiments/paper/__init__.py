"""The claims of the papers behind gradzip, one by one: `python -m experiments.paper`."""
