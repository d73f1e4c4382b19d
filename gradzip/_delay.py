"""A transformation that makes gradients arrive late.

In front of an exchange, `delay` replaces every worker's gradient by the one of some steps ago,
which is then compressed. A model (`gradzip._delay_models`) says how many steps; `delay` remembers
as many gradients as the longest delay needs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _axes as axes, _checks as checks, _leaves as leaves, _validation as validation
from gradzip._base import Array, AxisName, KeyLike, Like, PyTree, State, memory_like
from gradzip._delay_models import Constant, Delay


class DelayState(NamedTuple):
    """The state of `delay`. `past` is each worker's own, the rest the same on every worker."""

    count: Array  # i32[], the number of steps taken
    key: PyTree  # the base key; None if the model does not draw
    past: PyTree  # the last `bound` gradients, a ring f[bound, *shape]; PerWorker with an axis
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def delay(
    model: int | Delay, axis_name: AxisName | None = None, *, key: KeyLike | None = None
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
      key: for random models: an int or a typed key, the same on all workers.

    Returns:
      A transformation. Updates keep their shapes and dtypes. The memory is `bound` gradients.

    Raises:
      TypeError: model is neither an integer nor a Delay; a leaf that is not a real float.
      ValueError: a negative delay; a random model without a key; at trace time, an axis that is not
        mapped, gradients that differ between workers where there is no axis, or are of another tree
        or shape than params.

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
    if not isinstance(model, Delay):
        checks.integer('delay', 'model', model, 0)
        model = Constant(int(model))
    axes.names_of(axis_name)
    validation.check_key(key)
    if model.random and key is None:
        raise ValueError(f'{model!r} draws random delays: pass key=, an int or a typed key.')
    if model.bound == 0:
        return optax.identity()

    made_for = validation.made_for('delay', model, axis_name)

    def init(params: PyTree) -> DelayState:
        validation.check_updates(params, params)
        likes = jax.tree.map(memory_like, params)
        past = jax.tree.map(lambda x: jnp.zeros((model.bound, *x.shape), x.dtype), likes)
        past = axes.new_local(past, axis_name)
        return DelayState(jnp.zeros([], jnp.int32), leaves.base_key(key), past, made_for)

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, DelayState]:
        del params
        validation.check_state(state, DelayState, made_for)
        past = axes.unwrap_local(state.past, axis_name)
        validation.check_updates(
            updates, jax.tree.map(lambda ring: Like(ring.shape[1:], ring.dtype), past)
        )
        axes.check_local(updates, axis_name, memory=past)
        late = _late(model, updates, past, state, axis_name)
        late = axes.nan_if_misplaced(late, state.past, axis_name)
        past = _remember(updates, past, state.count % model.bound)
        count = leaves.next_count(state.count)
        return late, DelayState(count, state.key, axes.wrap_local(past, axis_name), made_for)

    return optax.GradientTransformation(init, update)


def _late(
    model: Delay, updates: PyTree, past: PyTree, state: DelayState, axis_name: AxisName | None
) -> PyTree:
    """Returns the gradients to use now. That of step s is in slot s % bound until s + bound."""
    if model.starts_from_zero:  # the oldest slot, which is zero at first; never today's gradient
        slot = state.count % model.bound
        return jax.tree.map(lambda ring, g: ring[slot].astype(g.dtype), past, updates)
    key = jax.random.key(0) if state.key is None else state.key
    steps = model.steps(key, state.count, axes.worker_index(axis_name))
    steps = jnp.minimum(steps, state.count)
    slot = (state.count - steps) % model.bound

    def choose(ring: Array, gradient: Array) -> Array:
        return jnp.where(steps == 0, gradient, ring[slot].astype(gradient.dtype))

    return jax.tree.map(choose, past, updates)


def _remember(updates: PyTree, past: PyTree, slot: Array) -> PyTree:
    return jax.tree.map(lambda ring, g: ring.at[slot].set(g.astype(ring.dtype)), past, updates)
