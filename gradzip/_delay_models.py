"""Models of delay: how many steps late the gradient of each worker is at each step.

Here are the base class and the models that follow a rule. Those that draw are in `_delay_draws`,
and the one that reads an array is in `_trace`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable
from typing import ClassVar, Self

import jax.numpy as jnp

from gradzip import _checks as checks
from gradzip._base import Array, Key, PyTree


class Delay(abc.ABC):
    """How many steps a gradient is late: an integer in [0, bound] for every step and worker.

    A subclass defines `bound` and `steps`. Two class variables describe it:

    - `random`: `steps` uses its key.
    - `starts_from_zero`: the first `bound` steps use zeros, and every later gradient is exactly
      `bound` steps late. Any other model uses min(draw, step), so that no gradient is older than
      the run.

    A model that reads arrays returns them from `arrays`. A transformation keeps them in its state
    and calls `model.bind(arrays).steps(...)`, so that they are no constants of the compiled
    program. A model that has a delay for each worker overrides `check_workers`.
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

    def arrays(self) -> PyTree:
        """Returns the arrays that `steps` reads, the same on every worker; () if there are none."""
        return ()

    def bind(self, arrays: PyTree) -> Self:
        """Returns this model with other arrays of the same shapes, which may be traced."""
        del arrays
        return self

    def check_workers(self, count: int) -> None:
        """Raises ValueError if the model lacks a delay for some of so many workers."""
        del count


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
class Fixed(Delay):
    """Every worker has a constant delay of its own.

    Args:
      delays: steps of worker 0, 1, ..., each at least 0. With fewer workers, the last are not used.

    Raises:
      ValueError: delays is empty or holds a negative number; from a transformation, there are more
        workers than delays.
      TypeError: delays is no sequence of integers.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> model, key = gz.Fixed((0, 3, 7)), jax.random.key(0)
      >>> model.bound, int(model.steps(key, jnp.int32(10), jnp.int32(1)))
      (7, 3)

    Reference: workers of different speeds, as in Koloskova, Stich, Jaggi, arXiv 2206.08307.
    """

    delays: tuple[int, ...]

    def __post_init__(self) -> None:
        if isinstance(self.delays, str) or not isinstance(self.delays, Iterable):
            raise TypeError(
                'Fixed(delays=...) must be a tuple of integers, one for each worker; got '
                f'{self.delays!r}.'
            )
        delays = tuple(self.delays)
        if not delays:
            raise ValueError('Fixed(delays=...) must hold a delay for each worker; got none.')
        for delay in delays:
            checks.integer('Fixed', 'delays', delay, 0)
        object.__setattr__(self, 'delays', tuple(int(delay) for delay in delays))

    @property
    def bound(self) -> int:
        return max(self.delays)

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        del key, step
        return jnp.asarray(self.delays, jnp.int32)[worker]

    def check_workers(self, count: int) -> None:
        check_enough(repr(self), len(self.delays), count)


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


@dataclasses.dataclass(frozen=True)
class Burst(Delay):
    """All workers are heard together every `period` steps; in between, their gradients age.

    The delays of all workers are 0, 1, ..., period - 1 and then 0 again.

    Args:
      period: steps, at least 1. With 1 nothing is late.

    Raises:
      ValueError: period below 1.
      TypeError: period is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> model, key = gz.Burst(3), jax.random.key(0)
      >>> [int(model.steps(key, jnp.int32(step), jnp.int32(1))) for step in range(5)]
      [0, 1, 2, 0, 1]

    Reference: among delays of one bound, it makes the noise of `iag` the largest, since all
      messages are used `period` times; Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573.
    """

    period: int

    def __post_init__(self) -> None:
        checks.integer('Burst', 'period', self.period, 1)

    @property
    def bound(self) -> int:
        return self.period - 1

    def steps(self, key: Key, step: Array, worker: Array) -> Array:
        del key, worker
        return step % self.period


def check_enough(model: str, delays: int, workers: int) -> None:
    """Raises ValueError if there are more workers than delays."""
    if workers > delays:
        raise ValueError(
            f'{model} has the delays of {delays} workers, but there are {workers}: it must have a '
            'delay for each of them.'
        )
