"""How long workers compute: distributions of the seconds of one gradient."""

from __future__ import annotations

import abc
import csv
import dataclasses
import functools
import math
import os
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from gradzip import _checks as checks, _quantities as quantities

Array = np.ndarray
SAMPLE = 1 << 17  # draws that stand for a distribution without a formula


class Times(abc.ABC):
    """The seconds that a worker computes one gradient, a random variable.

    A subclass defines `mean` and `draw`. Where `survival` has a formula, it defines that too.
    """

    mean: float  # seconds; a field or a property
    random: ClassVar[bool] = True  # whether `draw` and `blocks` use their generator

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """Returns the seconds of so many gradients in a row, independent draws: f64[count]."""

    def blocks(self, rng: np.random.Generator, size: int) -> Iterator[Array]:
        """Yields the seconds of all gradients of one worker in order, `size` at a time."""
        while True:
            yield self.draw(rng, size)

    def survival(self, seconds: Array) -> Array:
        """Returns the probability that a gradient takes longer than so many seconds."""
        sample = _sample(self)
        return 1 - np.searchsorted(sample, seconds, side='right') / len(sample)


@functools.lru_cache(maxsize=16)
def _sample(times: Times) -> Array:
    return np.sort(times.draw(np.random.default_rng(0), SAMPLE))


@dataclasses.dataclass(frozen=True)
class Constant(Times):
    """Every gradient takes the same time.

    Args:
      mean: seconds above 0, or text such as '20ms'.

    Raises:
      ValueError: the time is not above 0.
      TypeError: it is neither a number nor text.

    Example:
      >>> from gradzip import clock
      >>> clock.Constant('20ms').mean
      0.02
    """

    mean: float
    random: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _set_mean(self)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        return np.full(count, self.mean)

    def survival(self, seconds: Array) -> Array:
        return np.where(seconds < self.mean, 1.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Exponential(Times):
    """Times without a memory: however long a worker has computed, it needs as long again.

    Args:
      mean: seconds above 0, or text such as '20ms'.

    Raises:
      ValueError: the time is not above 0.
      TypeError: it is neither a number nor text.

    Example:
      >>> import numpy as np
      >>> from gradzip import clock
      >>> clock.Exponential(0.5).draw(np.random.default_rng(0), 3).shape
      (3,)
    """

    mean: float

    def __post_init__(self) -> None:
        _set_mean(self)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        return rng.exponential(self.mean, count)

    def survival(self, seconds: Array) -> Array:
        return np.exp(-np.maximum(seconds, 0) / self.mean)


@dataclasses.dataclass(frozen=True)
class LogNormal(Times):
    """The logarithm of a time is normal.

    Args:
      mean: seconds above 0, or text such as '20ms'.
      sigma: standard deviation of the logarithm, above 0. With 1, 5.5 % of the times are
        above three times the mean.

    Raises:
      ValueError: an argument is not above 0.
      TypeError: an argument is no number.

    Example:
      >>> from gradzip import clock
      >>> round(float(clock.LogNormal(1.0, sigma=1.0).survival(3.0)), 3)
      0.055
    """

    mean: float
    _: dataclasses.KW_ONLY
    sigma: float

    def __post_init__(self) -> None:
        _set_mean(self)
        if not 0 < checks.real('LogNormal', 'sigma', self.sigma) < math.inf:
            raise ValueError(f'LogNormal(sigma=...) must be above 0; got {self.sigma!r}.')

    @property
    def _median(self) -> float:
        return self.mean * math.exp(-(self.sigma**2) / 2)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        return rng.lognormal(math.log(self._median), self.sigma, count)

    def survival(self, seconds: Array) -> Array:
        with np.errstate(divide='ignore'):
            z = np.log(np.maximum(seconds, 0) / self._median) / self.sigma
        return _erfc(z / math.sqrt(2)) / 2


_erfc = np.vectorize(math.erfc, otypes=[float])  # NumPy has none


@dataclasses.dataclass(frozen=True)
class Pareto(Times):
    """Times with a heavy tail: P(longer than t) = (least / t)^alpha for t above the least time.

    Args:
      mean: seconds above 0, or text such as '20ms'. The least time is mean (alpha - 1) / alpha.
      alpha: above 1. Up to 2 the variance is infinite.

    Raises:
      ValueError: mean is not above 0, or alpha is not above 1.
      TypeError: an argument is no number.

    Example:
      >>> from gradzip import clock
      >>> round(float(clock.Pareto(1.0, alpha=2.0).survival(5.0)), 6)  # the least time is 0.5
      0.01
    """

    mean: float
    _: dataclasses.KW_ONLY
    alpha: float

    def __post_init__(self) -> None:
        _set_mean(self)
        if not 1 < checks.real('Pareto', 'alpha', self.alpha) < math.inf:
            raise ValueError(
                f'Pareto(alpha=...) must be above 1, or the mean would be infinite; got '
                f'{self.alpha!r}.'
            )

    @property
    def _least(self) -> float:
        return self.mean * (self.alpha - 1) / self.alpha

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        return self._least * (1 + rng.pareto(self.alpha, count))

    def survival(self, seconds: Array) -> Array:
        return (self._least / np.maximum(seconds, self._least)) ** self.alpha


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
            object.__setattr__(self, name, _above_zero('Outages', name, getattr(self, name)))

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


def _set_mean(times: Any) -> None:
    mean = _above_zero(type(times).__name__, 'mean', times.mean)
    object.__setattr__(times, 'mean', mean)


def _above_zero(owner: str, name: str, value: Any) -> float:
    seconds = quantities.seconds(f'{owner}({name}=...)', value)
    if not 0 < seconds < math.inf:
        raise ValueError(f'{owner}({name}=...) must be above 0 and finite; got {value!r}.')
    return seconds


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
