"""What `python -m experiments.accelerators` is made of: programs for chips that are not here."""
