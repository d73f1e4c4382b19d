"""Tables in files."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    """The names of the columns, then the rows."""
    with path.open('w', newline='') as file:
        out = csv.writer(file)
        out.writerow(columns)
        out.writerows(rows)
