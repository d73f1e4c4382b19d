"""Protocols on a clock: simulated seconds beside predicted ones."""
