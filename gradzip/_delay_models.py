"""Models of delay: how many steps late the gradient of each worker is at each step."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from gradzip import _checks as checks
from gradzip._base import Array, Key


class Delay(abc.ABC):
    """How many steps a gradient is late: an integer in [0, bound] for every step and worker.

    A subclass defines `bound` and `steps`. Two class variables describe it:

    - `random`: `steps` uses its key.
    - `starts_from_zero`: the first `bound` steps use zeros, and every later gradient is exactly
      `bound` steps late. Any other model uses min(draw, step), so that no gradient is older than
      the run.
    """

    bound: int  # the longest delay, in steps; a field or a property
    random: ClassVar[bool] = False
    starts_from_zero: ClassVar[bool] = False

    @abc.abstractmethod
    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        """Returns the delay of the gradient that `worker` uses at `step`: i32[] in [0, bound].

        `key` is the base key. A model folds in the step and the worker itself, so that any other
        transformation can compute the same draw.
        """


@dataclasses.dataclass(frozen=True)
class Constant(Delay):
    """Every gradient is `tau` steps late; the first `tau` steps see zeros.

    Args:
      tau: steps, at least 0.

    Raises:
      ValueError: tau is negative.
      TypeError: tau is not an integer.

    Example:
      >>> import gradzip as gz
      >>> gz.Constant(4).bound
      4

    Reference: the run of theorem T1 for constant delays, after Khirirat, Feyzmahdavian, Johansson,
    arXiv 1806.06573, tau steps later.
    """

    tau: int
    starts_from_zero: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.integer('Constant', 'tau', self.tau, 0)

    @property
    def bound(self) -> int:
        return self.tau

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        del key, step, worker
        return jnp.asarray(self.tau, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Uniform(Delay):
    """Every step and every worker draws a delay from 0, 1, ..., bound.

    Args:
      bound: steps, at least 0.

    Raises:
      ValueError: bound is negative.
      TypeError: bound is not an integer.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.delay(gz.Uniform(3), key=0)
      >>> tx.init(jnp.zeros(2)).past.shape
      (3, 2)

    Reference: the bounded, time-varying delays of Khirirat, Feyzmahdavian, Johansson, arXiv
      1806.06573.
    """

    bound: int
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        checks.integer('Uniform', 'bound', self.bound, 0)

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(key, step), worker)
        return jax.random.randint(key, (), 0, self.bound + 1, jnp.int32)


@dataclasses.dataclass(frozen=True)
class Cyclic(Delay):
    """Workers take turns: the gradient of worker w is new at steps w, w + n, w + 2 n, ...

    Args:
      workers: n, at least 1. Under `iag`, one of n workers sends at each step.

    Raises:
      ValueError: workers below 1.
      TypeError: workers is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> model, key = gz.Cyclic(3), jax.random.key(0)
      >>> [int(model.steps(key, jnp.int32(step), jnp.int32(1))) for step in range(5)]
      [2, 0, 1, 2, 0]

    Reference: the cyclic order of incremental aggregated gradients; Khirirat, Feyzmahdavian,
    Johansson, arXiv 1806.06573, the quantized one.
    """

    workers: int

    def __post_init__(self) -> None:
        checks.integer('Cyclic', 'workers', self.workers, 1)

    @property
    def bound(self) -> int:
        return self.workers - 1

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        del key
        return (step - worker) % self.workers
