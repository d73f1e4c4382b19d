"""How a step size depends on the delay of the gradient: the rules of `gradzip.scale_by_delay`.

A rule gives the factor of a step from its delay and from what the steps within that delay have
already used, both in units of the step size without delay.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from gradzip import _checks as checks
from gradzip._base import Array


class Rule(abc.ABC):
    """A factor of the step size, at least 0, for a delay."""

    remembers: ClassVar[bool] = False  # it uses the factors of the steps within the delay

    @abc.abstractmethod
    def factor(self, delay: Array, spent: Array) -> Array:
        """Returns the factor: f32[].

        Args:
          delay: f32[], in steps.
          spent: f32[], the sum of the factors of the last `delay` steps; 0 unless the rule
            remembers.
        """


@dataclasses.dataclass(frozen=True)
class Inverse(Rule):
    """1 / (1 + delay).

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> gz.delay_rules.Inverse().factor(jnp.float32(3), jnp.float32(0))
      Array(0.25, dtype=float32)

    Reference: Zhang, Gupta, Lian, Liu, arXiv 1511.05950, where the factor is 1 / delay.
    """

    def factor(self, delay: Array, spent: Array) -> Array:
        del spent
        return 1 / (1 + delay)


@dataclasses.dataclass(frozen=True)
class Concurrency(Rule):
    """n / max(n, delay): gradients are only scaled down where they are later than usual.

    Of n workers that send one gradient after another, the mean delay is below n.

    Args:
      workers: n, how many gradients are computed at the same time, at least 1.

    Raises:
      ValueError: workers below 1.
      TypeError: workers is not an integer.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> gz.delay_rules.Concurrency(40).factor(jnp.float32(80), jnp.float32(0))
      Array(0.5, dtype=float32)

    Reference: Mishchenko, Bach, Even, Woodworth, arXiv 2206.07638, the delay-adaptive step size.
    """

    workers: int

    def __post_init__(self) -> None:
        checks.integer('Concurrency', 'workers', self.workers, 1)

    def factor(self, delay: Array, spent: Array) -> Array:
        del spent
        return self.workers / jnp.maximum(self.workers, delay)


@dataclasses.dataclass(frozen=True)
class CutOff(Rule):
    """1 up to a delay, and 0 above: later gradients are dropped.

    Args:
      longest: the longest delay of a gradient that is used, in steps, at least 0.

    Raises:
      ValueError: longest is negative.
      TypeError: longest is not an integer.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> gz.delay_rules.CutOff(8).factor(jnp.float32(9), jnp.float32(0))
      Array(0., dtype=float32)

    Reference: the rule by which Ringmaster ASGD drops gradients, arXiv 2501.16168.
    """

    longest: int

    def __post_init__(self) -> None:
        checks.integer('CutOff', 'longest', self.longest, 0)

    def factor(self, delay: Array, spent: Array) -> Array:
        del spent
        return (delay <= self.longest).astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class Adaptive1(Rule):
    """share max(0, 1 - spent): a share of what the steps within the delay have left.

    The factors of a gradient's delay and its own never sum to more than 1, so the step size of
    `theory.delay_adaptive` is safe whatever the delays. If all are at most tau, any tau + 1
    consecutive factors sum to at least the share.

    Args:
      share: in (0, 1].

    Raises:
      ValueError: share is outside (0, 1].
      TypeError: share is not a number.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> gz.delay_rules.Adaptive1(0.5).factor(jnp.float32(3), jnp.float32(0.5))
      Array(0.25, dtype=float32)

    Reference: Wu, Magnusson, Feyzmahdavian, Johansson, arXiv 2202.08550, Adaptive 1.
    """

    share: float = 0.9
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.unit_interval('Adaptive1', 'share', self.share)

    def factor(self, delay: Array, spent: Array) -> Array:
        del delay
        return self.share * jnp.maximum(0, 1 - spent)


@dataclasses.dataclass(frozen=True)
class Adaptive2(Rule):
    """1 / (1 + delay) if the steps within the delay have left as much, and 0 otherwise.

    The sums of factors are as for `Adaptive1`; any 2 tau + 1 consecutive factors sum to at least
    1 / 2.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> gz.delay_rules.Adaptive2().factor(jnp.float32(3), jnp.float32(0.5))
      Array(0.25, dtype=float32)

    Reference: Wu, Magnusson, Feyzmahdavian, Johansson, arXiv 2202.08550, Adaptive 2.
    """

    remembers: ClassVar[bool] = True

    def factor(self, delay: Array, spent: Array) -> Array:
        wanted = 1 / (1 + delay)
        # Sums of factors that are equal on paper differ by rounding.
        return jnp.where(wanted <= (1 - spent) * (1 + 1e-5), wanted, 0.0)
