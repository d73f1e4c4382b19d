"""Models of delay that draw: every step and every worker draws independently.

A draw is compared with thresholds in integers. So it is the same under every mapper, whereas
floating-point functions may differ in the last bit between compiled programs.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from gradzip import _checks as checks
from gradzip._base import Array, Key
from gradzip._delay_models import Delay

BITS = 31  # of a draw: probabilities are rounded to multiples of 2^-31
HALF = 15  # of its bits are multiplied at once


@dataclasses.dataclass(frozen=True)
class Uniform(Delay):
    """Every step and every worker draws a delay from low, low + 1, ..., high.

    Args:
      low: steps, at least 0. `Uniform(bound)`, with one argument, draws from 0, 1, ..., bound.
      high: steps, at least low.

    Raises:
      ValueError: low is negative, or above high.
      TypeError: low or high is not an integer.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.delay(gz.Uniform(3), key=0)
      >>> tx.init(jnp.zeros(2)).past.shape
      (3, 2)
      >>> gz.Uniform(2, 5).bound
      5

    Reference: the bounded, time-varying delays of Khirirat, Feyzmahdavian, Johansson, arXiv
      1806.06573.
    """

    low: int
    high: int | None = None
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.integer('Uniform', 'low', self.low, 0)
        low, high = (0, self.low) if self.high is None else (self.low, self.high)
        checks.integer('Uniform', 'high', high, low)
        object.__setattr__(self, 'low', int(low))
        object.__setattr__(self, 'high', int(high))

    @property
    def bound(self) -> int:
        assert self.high is not None  # as __post_init__ sets it
        return self.high

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        span = self.bound + 1 - self.low
        if span >= 1 << HALF:
            return jax.random.randint(_own(key, step, worker), (), self.low, self.bound + 1)
        # floor(draw span / 2^31) without 64 bits. `randint` would hash four times as much, which is
        # a third of a step of a thousand workers with a hundred entries.
        draw = _draw(key, step, worker)
        low = (draw & ((1 << HALF) - 1)) * span >> HALF
        return self.low + (((draw >> HALF) * span + low) >> (BITS - HALF)).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Geometric(Delay):
    """Delays with a geometric tail: P(delay >= k) = (1 - p)^k for k <= bound.

    At every step the gradient of a worker arrives with probability p, and after `bound` steps it
    has arrived. Without the bound, the mean delay would be (1 - p) / p.

    Args:
      p: the probability that a gradient is not late, in (0, 1].
      bound: the longest delay, in steps, at least 0.

    Raises:
      ValueError: p is not in (0, 1], or bound is negative.
      TypeError: p is not a number, or bound is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> model = gz.Geometric(0.5, bound=8)
      >>> draws = jax.vmap(model.steps, (None, 0, None))(jax.random.key(0), jnp.arange(1000), 0)
      >>> int(draws.min()), int(draws.max()), bool(abs(draws.mean() - 1) < 0.2)
      (0, 8, True)

    Reference: the memory of a channel that loses messages; the bound is that of Khirirat,
      Feyzmahdavian, Johansson, arXiv 1806.06573.
    """

    p: float
    _: dataclasses.KW_ONLY
    bound: int
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.unit_interval('Geometric', 'p', self.p)
        checks.integer('Geometric', 'bound', self.bound, 0)

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        tail = (1 - self.p) ** np.arange(1, self.bound + 1)  # P(delay >= 1), P(delay >= 2), ...
        return jnp.sum(_draw(key, step, worker) < _threshold(tail), dtype=jnp.int32)


@dataclasses.dataclass(frozen=True)
class Straggler(Delay):
    """A gradient is `slow` steps late with some probability, and else not late.

    Args:
      probability: that a worker is slow at a step, in (0, 1].
      slow: steps, at least 0.

    Raises:
      ValueError: probability is not in (0, 1], or slow is negative.
      TypeError: probability is not a number, or slow is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> model = gz.Straggler(0.1, 20)
      >>> draws = jax.vmap(model.steps, (None, 0, None))(jax.random.key(0), jnp.arange(1000), 0)
      >>> sorted(set(draws.tolist())), bool(abs((draws > 0).mean() - 0.1) < 0.05)
      ([0, 20], True)

    Reference: rare long delays, for which delay-adaptive steps are made; Wu, Magnusson,
      Feyzmahdavian, Johansson, arXiv 2202.08550.
    """

    probability: float
    slow: int
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.unit_interval('Straggler', 'probability', self.probability)
        checks.integer('Straggler', 'slow', self.slow, 0)

    @property
    def bound(self) -> int:
        return self.slow

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        late = _draw(key, step, worker) < _threshold(np.asarray(self.probability))
        return jnp.where(late, jnp.int32(self.slow), jnp.int32(0))


def _own(key: Key, step: Array, worker: Array) -> Key:
    return jax.random.fold_in(jax.random.fold_in(key, step), worker)


def _draw(key: Key, step: Array, worker: Array) -> Array:
    """Returns an integer in [0, 2^31), uniform: u32[]."""
    return jax.random.bits(_own(key, step, worker), (), jnp.uint32) >> (32 - BITS)


def _threshold(probability: np.ndarray) -> np.ndarray:
    """Returns the integers below which a draw is with these probabilities."""
    return np.round(probability * 2.0**BITS).astype(np.uint32)
