"""Tables for people, on the screen and in text files, and CSV files for programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

WIDTH = 150  # of tables where there is no terminal to ask


def console() -> Console:
    """Where an experiment prints."""
    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


def table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1,
    caption: str | None = None,
) -> Table:  # fmt: skip
    """A row a line; the first `names` columns name it, and a change of the first of several ends a
    section.
    """
    out = Table(title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for i, head in enumerate(heads):
        out.add_column(head, justify='left' if i < names else 'right', no_wrap=i < names)
    rows = list(rows)
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        last = names > 1 and (following is None or following[0] != row[0])
        out.add_row(*row, end_section=last)
    return out


def show(where: Console, path: Path, *parts: Any) -> None:
    """Prints tables and sentences, also into a file."""
    with path.open('w') as file:
        Console(file=file, width=WIDTH).print(*parts, sep='\n', highlight=False)
    where.print(*parts, sep='\n')


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A line of names, then the rows, which all have the same ones."""
    rows = list(rows)
    with path.open('w', newline='') as file:
        out = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        out.writeheader()
        out.writerows(rows)
