"""How long a worker computes one gradient: what every distribution of seconds defines."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from gradzip import _quantities as quantities

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


def above_zero(owner: str, name: str, value: Any) -> float:
    """Returns seconds above 0, given as a number or as text."""
    seconds = quantities.seconds(f'{owner}({name}=...)', value)
    if not 0 < seconds < math.inf:
        raise ValueError(f'{owner}({name}=...) must be above 0 and finite; got {value!r}.')
    return seconds
