"""Distributions of the seconds of one gradient, which have formulas."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from gradzip import _checks as checks
from gradzip.clock._times import Array, Times, above_zero


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


def _set_mean(times: Any) -> None:
    mean = above_zero(type(times).__name__, 'mean', times.mean)
    object.__setattr__(times, 'mean', mean)
