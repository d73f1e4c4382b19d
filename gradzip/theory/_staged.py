"""A step size that is halved: what a theorem says of it, and its optax schedule.

With a constant step, a bound falls to a floor that is about proportional to the step. A long step
first and shorter ones later reach a target in fewer iterations than any constant step. A stage
ends when the bound is a few times its floor. Without delay, a theorem applies to each stage
alone. Theorem T1 holds for steps that do not increase (`_stale`). In the first tau steps of a
stage, late gradients still see the longer step gamma' of the stage before. With the weight c of the
stage before, what a step adds to the bound is at most gamma/gamma' times what it added there: the
old floor stays, approached at the new rate.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradzip.theory import _assume as assume
from gradzip.theory._bound import Bound
from gradzip.theory._problem import Problem
from gradzip.theory._stale import stale
from gradzip.theory._synchronous import dcgd, minibatch
from gradzip.theory._target import for_target

FAMILIES = (minibatch, dcgd, stale)
MULTIPLES = (1.3, 1.6, 2.0, 2.5, 3.5)  # of its floor at which a stage ends; all are tried
SPLITS = (0.25, 1.0, 4.0, 16.0)
_MOST = 200  # stages; each halves the floor


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a run with one step size."""

    start: int  # the iteration at which it begins
    value: float  # of the bound there
    bound: Bound
    before: float  # the floor of the stage before, which lasts for `late` steps
    late: int

    def at(self, k: int) -> float:
        """Returns the bound k iterations after the start."""
        early = min(k, self.late)
        value = self.before + self.bound.factor**early * (self.value - self.before)
        if k <= self.late:
            return value
        floor = self.bound.floor
        return floor + self.bound.factor ** (k - self.late) * (value - floor)

    def until(self, goal: float) -> int:
        """Returns after how many iterations, at least `late`, the bound is at most goal."""
        value, floor = self.at(self.late), self.bound.floor
        if value <= goal:
            return self.late
        if self.bound.factor == 0:
            return self.late + 1
        more = math.log((value - floor) / (goal - floor)) / -math.log(self.bound.factor)
        return self.late + math.ceil(more * (1 + 1e-12))


@dataclasses.dataclass(frozen=True)
class Staged:
    """A theorem at a step size that is halved. `halving` returns it, and it prints as a table.

    Args:
      stages: parts of the run, each with its `start` and its `bound`.
      eps: the target.
      iterations: when the bound reaches it.
    """

    stages: tuple[Stage, ...]
    eps: float
    iterations: int

    def at(self, k: int) -> float:
        """Returns the bound on the quantity at iteration k.

        Raises:
          ValueError: k is negative.
        """
        k = assume.integer('at', 'k', k, 0, 2**200)
        stage = max((s for s in self.stages if s.start <= k), key=lambda s: s.start)
        return stage.at(k - stage.start)

    def schedule(self) -> optax.Schedule:
        """Returns the step size as a function of the iteration, for `optax.sgd`."""
        steps = np.array([stage.bound.step_size for stage in self.stages], np.float32)
        starts = np.array([stage.start for stage in self.stages], np.int64)
        starts = np.minimum(starts, np.iinfo(np.int32).max).astype(np.int32)

        def step_size(count: jax.typing.ArrayLike) -> jax.Array:
            stage = jnp.searchsorted(starts, jnp.asarray(count, jnp.int32), side='right') - 1
            return jnp.asarray(steps)[stage]

        return step_size

    def bits(self, bits_per_message: float) -> float:
        """Returns the bits that all workers together send until the target.

        Raises:
          ValueError: bits_per_message is not above 0.
        """
        size = assume.real('bits', 'bits_per_message', bits_per_message, 0, above=True)
        return self.iterations * self.stages[0].bound.messages * size

    def __str__(self) -> str:
        first = self.stages[0].bound
        rows = [
            f'theorem      {first.theorem}',
            f'quantity     {first.quantity}, at most {self.eps:.6g} after {self.iterations} steps',
            '       from    step size        bound',
        ]
        rows += [f'{s.start:11}  {s.bound.step_size:11.6g}  {s.value:11.6g}' for s in self.stages]
        return '\n'.join(rows)


def halving(
    family: Callable[..., Bound], problem: Problem, eps: float, *args: Any, **kwargs: Any
) -> Staged:
    """Returns a step size that is halved in stages, and when its bound reaches eps.

    It takes at most as long as the constant step of `for_target`, which it is where nothing is
    gained.

    Args:
      family: `theory.minibatch`, `theory.dcgd` or `theory.stale`.
      problem: with mu > 0 and V0, and G if there is noise.
      eps: the target, in E |x_k - x*|^2.
      args: what the family takes after the problem, such as omega and tau.
      kwargs: its options, without step_size.

    Returns:
      A `Staged`, whose `schedule()` is an optax schedule.

    Raises:
      ValueError: the family is another one, mu = 0, or as `for_target`.
      TypeError: as `for_target`.

    Example:
      >>> import optax
      >>> from gradzip import theory
      >>> problem = theory.Problem(n=8, L=1.0, mu=0.1, L_max=1.0, G=0.1, V0=1.0)
      >>> staged = theory.halving(theory.stale, problem, 0.01, 3.0, tau=4)
      >>> constant = theory.for_target(theory.stale, problem, 0.01, 3.0, tau=4)
      >>> staged.iterations, constant.iterations(0.01)
      (606, 647)
      >>> tx = optax.sgd(staged.schedule())
    """
    if family not in FAMILIES:
        names = ', '.join(f.__name__ for f in FAMILIES)
        raise ValueError(
            f'halving(family=...) must be one of {names}, whose proofs hold for steps that change; '
            f'got {family!r}. Use theory.for_target.'
        )
    instead = 'Use theory.for_target.'
    assume.strongly_convex('halving', problem.mu, instead)
    constant = for_target(family, problem, eps, *args, **kwargs)
    known = inspect.signature(family).bind(problem, *args, **kwargs).arguments
    late = int(known.get('tau', 0))
    best = Staged((Stage(0, constant.at(0), constant, 0.0, 0),), eps, int(constant.iterations(eps)))
    if constant.floor == 0:
        return best
    for split in (kwargs.pop('split'),) if 'split' in kwargs else SPLITS:
        make = functools.cache(functools.partial(family, problem, *args, split=split, **kwargs))
        for multiple in MULTIPLES:
            found = _stages(make, eps, multiple, late)
            best = min(best, found, key=lambda staged: staged.iterations)
    return best


def _stages(make: Callable[..., Bound], eps: float, multiple: float, late: int) -> Staged:
    """Returns the stages in which every step lasts until the bound is a multiple of its floor."""
    bound = make()
    start, stages, before = 0, [], bound.floor
    value, longest = bound.at(0) - bound.floor, bound.step_size
    for i in range(_MOST):
        bound = make(step_size=longest / 2**i) if i else bound
        if value <= multiple * bound.floor and i + 1 < _MOST and not stages:
            before = make(step_size=longest / 2 ** (i + 1)).floor
            continue  # this step is too long even for the start
        stage = Stage(start, value, bound, before, late if stages else 0)
        goal = max(eps, multiple * bound.floor)
        count = stage.until(goal)
        stages.append(stage)
        start, value, before = start + count, stage.at(count), bound.floor
        if value <= eps:
            break
    return Staged(tuple(stages), eps, start if value <= eps else 2**62)
