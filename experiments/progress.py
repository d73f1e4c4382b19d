"""How far a list of runs has come."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def runs_bar(console: Console) -> Progress:
    """What runs, a bar, which run of how many (the field `runs`), and the time that is left."""
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('run {task.fields[runs]},'),
        TimeRemainingColumn(),
        TextColumn('left'),
        console=console,
    )
