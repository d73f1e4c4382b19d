"""Seconds of gradients as computers show them: with outages, and as they were measured."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from gradzip.clock._times import Array, Times, above_zero


@dataclasses.dataclass(frozen=True)
class Outages(Times):
    """A worker that stops from time to time while it computes, and then goes on.

    Outages come at random while a worker computes, one in `every` seconds of computing, and last an
    exponential time. A worker that waits has none.

    Args:
      times: the seconds of a gradient without outages, a `Times`.
      every: seconds of computing between two outages on average, above 0, or text.
      lasting: the mean length of an outage in seconds, above 0, or text.

    Raises:
      ValueError: a time is not above 0.
      TypeError: times is no `Times`, or a time neither a number nor text.

    Example:
      >>> from gradzip import clock
      >>> clock.Outages(clock.Constant(1.0), every=10.0, lasting=5.0).mean
      1.5
    """

    times: Times
    _: dataclasses.KW_ONLY
    every: float
    lasting: float

    def __post_init__(self) -> None:
        if not isinstance(self.times, Times):
            raise TypeError(f'Outages(times=...) must be a Times; got {self.times!r}.')
        for name in ('every', 'lasting'):
            object.__setattr__(self, name, above_zero('Outages', name, getattr(self, name)))

    @property
    def mean(self) -> float:
        return self.times.mean * (1 + self.lasting / self.every)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        seconds = self.times.draw(rng, count)
        outages = rng.poisson(seconds / self.every)
        return seconds + self.lasting * rng.standard_gamma(outages)  # 0 for no outage


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Measured(Times):
    """Times that were measured, in their order: a simulated worker starts at a random place.

    At the end of the measured times it goes on at their start. So the times of one worker keep the
    correlation that they had.

    Args:
      seconds: of one gradient after the other, f64[count], each above 0.

    Raises:
      ValueError: no times, an array of several axes, or a time that is not above 0 and finite.

    Example:
      >>> from gradzip import clock
      >>> clock.Measured([0.1, 0.3]).mean
      0.2
    """

    seconds: Any

    def __post_init__(self) -> None:
        seconds = np.asarray(self.seconds, float)
        if seconds.ndim != 1 or not seconds.size:
            raise ValueError(
                'Measured(seconds=...) must be the times of one worker, an array of one axis; got '
                f'shape {seconds.shape}. For several workers, make one Measured for each.'
            )
        if not (np.isfinite(seconds) & (seconds > 0)).all():
            raise ValueError(
                'Measured(seconds=...) must hold finite times above 0; got some from '
                f'{seconds.min()} to {seconds.max()}.'
            )
        object.__setattr__(self, 'seconds', seconds)

    @classmethod
    def from_csv(cls, path: str | os.PathLike) -> tuple[Measured, ...]:
        """Reads a CSV file of seconds: one `Measured` for each column, which is a worker.

        A first line that holds no numbers is taken for names. Empty cells are left out.

        Raises:
          ValueError: a later line holds something else than numbers, or a column has no times.
        """
        with open(path, newline='') as file:
            rows = [row for row in csv.reader(file) if row]
        if rows and not all(_is_number(cell) for cell in rows[0] if cell.strip()):
            rows = rows[1:]
        columns = max(map(len, rows), default=0)
        cells = [
            [row[i] for row in rows if row[i : i + 1] and row[i].strip()] for i in range(columns)
        ]
        return tuple(cls(column) for column in cells)

    @property
    def mean(self) -> float:
        return float(self.seconds.mean())

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        return rng.choice(self.seconds, count)

    def blocks(self, rng: np.random.Generator, size: int) -> Iterator[Array]:
        at = int(rng.integers(len(self.seconds)))
        while True:
            yield self.seconds.take(np.arange(at, at + size), mode='wrap')
            at += size

    def __repr__(self) -> str:
        return f'Measured({len(self.seconds)} times, mean={self.mean:.4g})'


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
