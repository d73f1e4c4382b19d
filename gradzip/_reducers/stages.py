"""A schedule: one reducer after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _axes as axes, _checks as checks
from gradzip._base import Array, AxisName, Compressor, Key, Like, Reduced, Reducer, State
from gradzip._reducers.default import reducer_of


class StagesState(NamedTuple):
    """For one array."""

    count: Array  # i32[], steps taken
    states: tuple[State, ...]  # of every stage; those that do not run stand still


@dataclasses.dataclass(frozen=True)
class Stages(Reducer):
    """`reducers[i]` runs in the steps from `ends[i - 1]` to `ends[i]`, the last one ever after.

    What `stages` returns. All stages are compiled, and lax.switch runs one of them: the count is
    the same on every worker, so all workers meet in the same collectives.

    Example:
      >>> import gradzip as gz
      >>> gz.stages((gz.Identity(), 100), (gz.TopK(0.04), 50), gz.TopK(0.01)).ends
      (100, 150)
    """

    reducers: tuple[Reducer, ...]
    ends: tuple[int, ...]

    @property
    def random(self) -> bool:
        return any(reducer.random for reducer in self.reducers)

    def contractive(self) -> Stages:
        return Stages(tuple(reducer.contractive() for reducer in self.reducers), self.ends)

    def init(self, like: Like) -> StagesState:
        states = tuple(reducer.init(like) for reducer in self.reducers)
        return StagesState(jnp.zeros([], jnp.int32), states)

    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        count = states[0].count  # the leaves of one reducer are always reduced together
        stage = jnp.sum(count >= jnp.asarray(self.ends, jnp.int32), dtype=jnp.int32)

        def branch(i: int) -> Callable:
            def run(xs: list[Array], owns: list[tuple], keys: list[Key]) -> list[Reduced]:
                out = self.reducers[i].reduce(xs, [own[i] for own in owns], keys, axis_name)
                return [_complete(*args, i) for args in zip(xs, out, owns, strict=True)]

            return run

        branches = [branch(i) for i in range(len(self.reducers))]
        out = lax.switch(stage, branches, xs, [state.states for state in states], keys)
        next_count = jnp.minimum(count, max(self.ends)) + 1  # never overflows
        return [r._replace(state=StagesState(next_count, r.state)) for r in out]


def stages(*parts: Any) -> Stages:
    """A schedule of the compression: `stages((first, steps), ..., last)`, as a scheme.

    DGC's warm-up, PowerSGD's start, 1-bit Adam's: exact or mild at first, and then as it stays. The
    memory of `error_feedback` is not the schedule's affair and lives on through every switch. For a
    choice by leaf, `lambda p: stages(...)`.

    Args:
      parts: pairs of a Compressor or Reducer and the number of its steps, at least 1, and at the
        end a Compressor or Reducer alone.

    Returns:
      A Reducer. Its `reducers` are the stages; its state, one count and every stage's state.

    Bytes: those of the stage that runs. `payload_bytes` of the whole, as of every conditional, is
      that of the largest; of a single stage, `payload_bytes(scheme.reducers[i], params)`.

    Raises:
      ValueError: no stage with a number of steps, or a number below 1.
      TypeError: a part of another kind.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> scheme = gz.stages((gz.Identity(), 500), (gz.TopK(0.04), 500), gz.TopK(0.01))
      >>> [gz.payload_bytes(stage, jnp.zeros(100_000)) for stage in scheme.reducers]
      [400000, 19456, 5120]
      >>> gz.payload_bytes(scheme, jnp.zeros(100_000))
      400000

    Reference: Lin et al., arXiv 1712.01887, section 3.3 (warm-up); Tang et al., arXiv 2102.02888.
    """
    if len(parts) < 2:
        raise ValueError(
            'stages must have at least one pair (scheme, steps) and a last scheme; got '
            f'{parts!r}. For one scheme alone, use it as it is.'
        )
    *first, last = parts
    for part in first:
        if not (isinstance(part, tuple) and len(part) == 2):
            raise TypeError(
                f'stages(...): all but the last must be pairs (scheme, steps); got {part!r}.'
            )
        checks.integer('stages', 'steps', part[1], 1)
    schemes = [scheme for scheme, _ in first] + [last]
    ends = [sum(steps for _, steps in first[: i + 1]) for i in range(len(first))]
    checks.integer('stages', 'steps in all', ends[-1], 1, (1 << 31) - 2)
    return Stages(tuple(_reducer(scheme) for scheme in schemes), tuple(ends))


def _reducer(scheme: Any) -> Reducer:
    if not isinstance(scheme, Compressor | Reducer):
        raise TypeError(
            f'stages(...): a stage must be a Compressor or a Reducer; got {scheme!r}. For a choice '
            'by leaf, use a function from a leaf to stages(...).'
        )
    return reducer_of(scheme)


def _complete(x: Array, reduced: Reduced, own: tuple, i: int) -> Reduced:
    """With what was lost, and every stage's state, so that all branches return the same types."""
    sent, lost = axes.vary_like((reduced.sent, reduced.lost_of(x)), (x, x))
    return Reduced(reduced.mean, sent, (*own[:i], reduced.state, *own[i + 1 :]), lost)
