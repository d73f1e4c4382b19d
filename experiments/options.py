"""Lists with commas on the command line, and how a command refuses what it was given."""

from __future__ import annotations

import typer
from rich.console import Console


def some_of(option: str, given: str, known: list[str]) -> list[str]:
    """The names in a list with commas, each once."""
    names = list(dict.fromkeys(name.strip() for name in given.split(',')))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f'{option}: {unknown} unknown. Choose from {", ".join(known)}.')
    return names


def whole_numbers(option: str, given: str, least: int) -> list[int]:
    """The numbers in a list with commas, each once."""
    parts = [part.strip() for part in given.split(',')]
    if not all(part.isdecimal() and int(part) >= least for part in parts):
        raise ValueError(
            f'{option} must be whole numbers from {least}, such as 4,16; got {given!r}.'
        )
    return list(dict.fromkeys(int(part) for part in parts))


def refuse(error: Exception) -> typer.Exit:
    """Prints what was wrong with the arguments of a command; raise what it returns."""
    Console(stderr=True).print(f'Error: {error}', style='red', markup=False, highlight=False)
    return typer.Exit(2)
