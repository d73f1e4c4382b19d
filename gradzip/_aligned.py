"""Text in columns, for objects that print as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(lines: Iterable[Sequence[str]], words: int) -> list[str]:
    """Returns a line of text for each row of cells.

    Args:
      lines: the heads and the rows, each with as many cells.
      words: how many of the first columns hold words and stand on the left; the others hold numbers
        and stand on the right.
    """
    lines = list(lines)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [str.ljust] * words + [str.rjust] * (len(widths) - words)
    return [
        '  '.join(side(x, n) for side, x, n in zip(sides, line, widths, strict=True)).rstrip()
        for line in lines
    ]
