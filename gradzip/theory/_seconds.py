"""What a bound in seconds says, and how long workers need for a number of gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradzip.theory import _assume as assume
from gradzip.theory._late_sgd import ROUNDING


@dataclasses.dataclass(frozen=True)
class TimeBound:
    """Seconds in which a protocol surely reaches its target. The `time_...` functions return it.

    Args:
      protocol: its name and constant.
      step_size: of `optax.sgd`, on the mean of the gradients of a step.
      steps: until the target is reached.
      seconds: until then.

    Example:
      >>> from gradzip import theory
      >>> theory.TimeBound('synchronous', 0.5, steps=10, seconds=30.0).seconds_a_step
      3.0
    """

    protocol: str
    step_size: float
    steps: int
    seconds: float

    @property
    def seconds_a_step(self) -> float:
        """On average."""
        return self.seconds / self.steps


def collected(h: np.ndarray, count: int, *, lost: int = 0) -> float:
    """The seconds t in which workers finish `count` gradients, without the first `lost` of each.

    The smallest t with sum_i (floor(t / h_i) - lost)_+ >= count.
    """

    def enough(t: float) -> bool:
        return np.sum(np.maximum(np.floor(t / h * (1 + ROUNDING)) - lost, 0)) >= count

    near = smallest(enough, float(h[0]))
    exact = h * np.round(near / h)  # at the end of a gradient of one of the workers
    return float(exact[np.argmin(abs(exact - near))])


def smallest(enough: Callable[[float], bool], start: float) -> float:
    """The smallest t above 0 from which on a condition holds, by bisection."""
    low, high = 0.0, start
    while not enough(high):
        low, high = high, 2 * high
    while high - low > ROUNDING * high:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def per_worker(owner: str, name: str, values: Any, *, above: bool = False) -> np.ndarray:
    """Returns a number of seconds for each worker: f64[n]."""
    if not isinstance(values, Sequence | np.ndarray) or isinstance(values, str) or not len(values):
        raise ValueError(
            f'{owner}({name}=...) must hold the seconds of each worker; got {values!r}.'
        )
    return np.array([assume.real(owner, name, x, 0, above=above) for x in values])


def sorted_seconds(owner: str, seconds: Any) -> np.ndarray:
    """Returns the seconds of one gradient of each worker, the fastest first: f64[n]."""
    return np.sort(per_worker(owner, 'seconds', seconds, above=True))
