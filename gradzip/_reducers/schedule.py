"""A schedule of the compression: one scheme after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _checks as checks
from gradzip._base import Array, AxisName, Compressor, Key, Like, Reduced, Reducer, State
from gradzip._reducers.branches import shared_types
from gradzip._reducers.default import reducer_of

LAST_STEP = (1 << 31) - 2  # an int32 counts the steps, and one more must not overflow


class ScheduleState(NamedTuple):
    """The state of one leaf under a `Schedule`."""

    count: Array  # i32[], the number of steps taken
    states: tuple[State, ...]  # of every scheme; only that of the scheme in use changes


@dataclasses.dataclass(frozen=True)
class Schedule(Reducer):
    """Uses `schemes[i]` in the steps from `boundaries[i - 1]` up to `boundaries[i]`.

    Use it for a warm-up: an exact or mild exchange at first, a stronger compression later. The
    memory of `error_feedback` is kept across every boundary. For a choice by leaf as well, use a
    function: `lambda p: gz.Schedule(...)`.

    All schemes are compiled, and `lax.switch` runs the one whose turn it is. The step count is the
    same on every worker, so all workers take part in the same collectives.

    Args:
      schemes: two or more, each a Compressor or a Reducer.
      boundaries: the step at which each scheme after the first takes over; ascending, from 1.

    Bytes: those of the scheme in use. `payload_bytes` of the whole, as of every conditional, is
      that of the largest scheme; for a single one, `payload_bytes(schedule.schemes[i], params)`.

    Raises:
      ValueError: fewer than two schemes, another number of boundaries than schemes less one, or
        boundaries that do not ascend.
      TypeError: a scheme that is neither a Compressor nor a Reducer, or a boundary that is not an
        integer.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> scheme = gz.Schedule((gz.Identity(), gz.TopK(0.04), gz.TopK(0.01)), (500, 1000))
      >>> [gz.payload_bytes(part, jnp.zeros(100_000)) for part in scheme.schemes]
      [400000, 19456, 5120]
      >>> gz.payload_bytes(scheme, jnp.zeros(100_000))
      400000

    Reference: Lin et al., arXiv 1712.01887, section 3.3 (warm-up of the sparsity); Tang et al.,
      arXiv 2102.02888 (exact steps before 1-bit Adam). The arguments are those of
      `optax.join_schedules`.
    """

    schemes: tuple[Any, ...]
    boundaries: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.schemes, tuple | list):
            raise TypeError(
                f'Schedule(schemes=...) must be a tuple of schemes; got {self.schemes!r}.'
            )
        if len(self.schemes) < 2:
            raise ValueError(
                'Schedule(schemes=...) must hold at least two schemes; got '
                f'{self.schemes!r}. A single scheme needs no schedule.'
            )
        if not isinstance(self.boundaries, tuple | list):
            raise TypeError(
                f'Schedule(boundaries=...) must be a tuple of integers; got {self.boundaries!r}.'
            )
        if len(self.boundaries) != len(self.schemes) - 1:
            raise ValueError(
                f'Schedule(boundaries=...) must have one entry less than there are schemes, '
                f'{len(self.schemes) - 1}; got {self.boundaries!r}.'
            )
        least = 1
        for boundary in self.boundaries:
            checks.integer('Schedule', 'boundaries', boundary, least, LAST_STEP)
            least = int(boundary) + 1
        object.__setattr__(self, 'schemes', tuple(_reducer(scheme) for scheme in self.schemes))
        object.__setattr__(self, 'boundaries', tuple(int(b) for b in self.boundaries))

    @property
    def random(self) -> bool:
        return any(reducer.random for reducer in self.schemes)

    def contractive(self, like: Like) -> Schedule:
        return Schedule(tuple(r.contractive(like) for r in self.schemes), self.boundaries)

    def init(self, like: Like) -> ScheduleState:
        states = tuple(reducer.init(like) for reducer in self.schemes)
        return ScheduleState(jnp.zeros([], jnp.int32), states)

    def reduce(
        self, xs: list[Array], states: list[State], keys: list[Key], axis_name: AxisName | None
    ) -> list[Reduced]:
        count = states[0].count  # the leaves of one reducer are always reduced together
        turn = jnp.sum(count >= jnp.asarray(self.boundaries, jnp.int32), dtype=jnp.int32)

        def branch(i: int) -> Callable:
            def run(xs: list[Array], owns: list[tuple], keys: list[Key]) -> list[Reduced]:
                out = self.schemes[i].reduce(xs, [own[i] for own in owns], keys, axis_name)
                return [
                    shared_types(x, reduced, (*own[:i], reduced.state, *own[i + 1 :]))
                    for x, reduced, own in zip(xs, out, owns, strict=True)
                ]

            return run

        branches = [branch(i) for i in range(len(self.schemes))]
        out = lax.switch(turn, branches, xs, [state.states for state in states], keys)
        next_count = jnp.minimum(count, self.boundaries[-1]) + 1
        return [r._replace(state=ScheduleState(next_count, r.state)) for r in out]


def _reducer(scheme: Any) -> Reducer:
    if not isinstance(scheme, Compressor | Reducer):
        raise TypeError(
            'Schedule(schemes=...) must hold Compressors and Reducers; got '
            f'{scheme!r}. For a choice by leaf, use a function from a leaf to a Schedule.'
        )
    return reducer_of(scheme)
