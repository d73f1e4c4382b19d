"""A program whose first process ends with an error while the other one waits."""

import time

import jax
import typer

SECONDS = 3600


def main() -> None:
    """Fail, or wait."""
    if jax.process_index() == 0:
        raise typer.Exit(3)
    time.sleep(SECONDS)
