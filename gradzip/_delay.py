"""A transformation that makes gradients arrive late.

In front of an exchange, `delay` replaces every worker's gradient by the one of some steps ago,
which is then compressed. A model (`gradzip._delay_models`) says how many steps; `delay` remembers
as many gradients as the longest delay needs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import (
    _ages as ages,
    _axes as axes,
    _leaves as leaves,
    _narrow as narrow,
    _validation as validation,
)
from gradzip._base import Array, AxisName, KeyLike, Like, PyTree, State
from gradzip._delay_models import Delay
from gradzip._kernels.ring import after, replaced


class DelayState(NamedTuple):
    """The state of `delay`. `past` is each worker's own, the rest the same on every worker."""

    count: Array  # i32[], the number of steps taken
    key: PyTree  # the base key; None if the model does not draw
    arrays: PyTree  # that the model reads; () if there are none
    past: PyTree  # the last `bound` gradients, a ring f[bound, *shape]; PerWorker with an axis
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def delay(
    model: int | Delay,
    axis_name: AxisName | None = None,
    *,
    memory_dtype: Any = None,
    key: KeyLike | None = None,
) -> optax.GradientTransformation:
    """Replaces every gradient by the worker's own of some steps ago.

    A constant delay, `delay(tau)`, uses no gradient of the current step. In front of an exchange,
    `delay(1)` therefore lets the exchange of the last gradient run while the next one is computed:
    in the compiled programs (tests/test_overlap.py), the exchange depends on no matrix product of
    the model. The compiler decides whether the two overlap. For TPU (v5e, compiled ahead of time)
    it splits an all-gather, as of `Gather` and the second half of `TwoShot`, and schedules all
    products between its start and its end; its option `xla_tpu_enable_async_collective_fusion`
    turns that off. All-reduces, as of `Sum` and `PowerSGD`, and all-to-alls are not split there, so
    they do not overlap. On CPU nothing overlaps.

    Args:
      model: a `Delay`, or an int for `Constant`. With 0, gradients pass unchanged.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Nothing is
        communicated, but every worker has its own past gradients and its own draws.
      memory_dtype: dtype of the late gradients; by default the leaf's own, at least float32. In
        'bfloat16' or in 'int8', where blocks of 256 entries share a scale, they are rounded at
        random, so that nothing is lost in expectation. They then take 16 or 8.1 bits an entry.
      key: for random models and roundings: an int or a typed key, the same on all workers.

    Returns:
      A transformation. Updates keep their shapes and dtypes. The memory is `bound` gradients. Where
      all workers share their parameters, `stale_params` does the same with `bound` versions of
      these, for all workers together.

    Raises:
      TypeError: model is neither an integer nor a Delay; another memory_dtype; a leaf that is not a
        real float.
      ValueError: a negative delay; a random model, or a memory that is rounded at random, without a
        key; at trace time, an axis that is not mapped, gradients that differ between workers where
        there is no axis, or are of another tree or shape than params.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.delay(2)
      >>> state = tx.init(jnp.zeros([]))
      >>> for step in range(1, 5):
      ...   late, state = tx.update(jnp.float32(step), state)
      ...   print(late)
      0.0
      0.0
      1.0
      2.0

    Reference: Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573.
    """
    model = ages.check_model('delay', model, axis_name, key)
    dtype = narrow.check_dtype('delay', memory_dtype)
    at_random = narrow.rounds_at_random(dtype)
    if at_random and key is None:
        raise ValueError(
            f'delay(memory_dtype={memory_dtype!r}) rounds late gradients at random: pass key=, an '
            'int or a typed key.'
        )
    if model.bound == 0:
        return optax.identity()
    owner = 'delay' if dtype is None else f'delay[{dtype.name}]'
    made_for = validation.made_for(owner, model, axis_name)

    def init(params: PyTree) -> DelayState:
        validation.check_updates(params, params)
        one = jax.eval_shape(lambda: narrow.zeros(params, dtype))
        past = jax.tree.map(lambda x: jnp.zeros((model.bound, *x.shape), x.dtype), one)
        past = axes.new_local(past, axis_name)
        count, arrays = jnp.zeros([], jnp.int32), ages.first_arrays(model)
        return DelayState(count, leaves.base_key(key), arrays, past, made_for)

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, DelayState]:
        del params
        validation.check_state(state, DelayState, made_for)
        past = axes.unwrap_local(state.past, axis_name)
        entries = jax.tree.map(_entries, past, is_leaf=narrow.is_int8)
        validation.check_updates(
            updates, jax.tree.map(lambda ring: Like(ring.shape[1:], jnp.float32), entries)
        )
        axes.check_local(updates, axis_name, memory=entries)
        late, read = _late(model, updates, past, state, axis_name)
        late = axes.nan_if_misplaced(late, state.past, axis_name)
        kept = updates
        if at_random:
            kept = narrow.stored(
                leaves.in_memory_dtype(updates), dtype, leaves.worker_key(state, axis_name)
            )
        slot = state.count % model.bound
        past = jax.tree.map(
            lambda ring, x, r: replaced(ring, slot, after(x.astype(ring.dtype), r)),
            past,
            kept,
            read,
        )
        count = leaves.next_count(state.count)
        past = axes.wrap_local(past, axis_name)
        return late, state._replace(count=count, past=past)

    return optax.GradientTransformation(init, update)


def _late(
    model: Delay, updates: PyTree, past: PyTree, state: DelayState, axis_name: AxisName | None
) -> tuple[PyTree, PyTree]:
    """Returns the gradients to use now, and what was read of the ring for them.

    The gradient of step s is in slot s % bound until step s + bound.
    """
    age = ages.age(model, state, axis_name)
    slot = (state.count - age) % model.bound
    read = jax.tree.map(lambda x: x[slot], past)

    def choose(gradient: Array, old: PyTree) -> Array:
        late = narrow.wide(old).astype(gradient.dtype)
        if model.starts_from_zero:  # it never uses today's gradient; its slot is zero at first
            return late
        return jnp.where(age == 0, gradient, late)

    return jax.tree.map(choose, updates, read), read


def _entries(ring: PyTree) -> Array:
    """The array of a ring that has the shape of its leaf, behind the axis of slots."""
    return ring.codes if narrow.is_int8(ring) else ring
