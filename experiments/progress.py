"""How far a long command is: a spinner, what is being done, and the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Say = Callable[[str], Any]


@contextmanager
def saying(console: Console) -> Iterator[Say]:
    """A function that is told what is being done now, and shows it."""
    columns = SpinnerColumn(), TextColumn('{task.description}'), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task('')
        yield lambda text: progress.update(bar, description=text)
