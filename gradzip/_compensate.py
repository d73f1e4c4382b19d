"""A correction of late gradients to first order, from how far the parameters have moved."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import (
    _ages as ages,
    _axes as axes,
    _checks as checks,
    _leaves as leaves,
    _stale_params as stale,
    _validation as validation,
)
from gradzip._base import Array, AxisName, KeyLike, PyTree, State
from gradzip._delay_models import Delay

SMALLEST = 1e-7  # added to the mean square, which is zero for a gradient of zero


class CompensateState(NamedTuple):
    """The state of `compensate`. `mean_square` is each worker's own, the rest the same for all."""

    count: Array  # i32[], the number of steps taken
    key: PyTree  # the base key; None if the model does not draw
    arrays: PyTree  # that the model reads; () if there are none
    past: PyTree  # the params of the last `bound` steps, a ring f[bound, *shape]
    mean_square: PyTree  # of the gradients; PerWorker with an axis; () without decay
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def compensate(
    model: int | Delay,
    axis_name: AxisName | None = None,
    *,
    strength: float = 0.04,
    decay: float | None = None,
    key: KeyLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Adds to a late gradient an estimate of how much it has changed since (DC-ASGD).

        u = g + lambda g * g * (x_now - x_then),     elementwise

    g is the gradient at x_then, and lambda g * g stands for the diagonal of the Hessian, as in the
    Fisher information. In the adaptive form, with a decay m, lambda = strength / sqrt(v + 1e-7),
    where v <- m v + (1 - m) g * g for every entry, so that the correction is of the size of g.

    It goes behind `delay`, with the same model and key, and in front of the exchange: `chain(
    delay(model, axis, key=0), compensate(model, axis, key=0), error_feedback(...), sgd(...))`.
    Where gradients are computed at old parameters by other means, such as `stale_params`, it stands
    alone, and an age that is known otherwise is passed as `tx.update(g, state, params, delay=age)`.

    Args:
      model: a `Delay`, or an int for `Constant`: the model by which gradients are late.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker, or for a
        server that receives one gradient at a time.
      strength: lambda, at least 0. In the adaptive form it multiplies the gradient times the
        distance instead of its square, so that it should be larger, such as 1.
      decay: m, in [0, 1), such as 0.95, for the adaptive form; None for a constant lambda.
      key: for random models: the same as that of `delay`.

    Returns:
      A transformation with the extra argument `delay`, with which updates are NaN if it is above
      the bound of the model. Updates keep their shapes and dtypes. It needs params in `update`. The
      memory is `bound` times that of params, the same on all workers, and one array for each
      gradient of each worker in the adaptive form.

    Raises:
      TypeError: model is neither an integer nor a Delay; a number of another kind; a leaf that is
        not a real float.
      ValueError: a negative delay or strength; decay outside [0, 1); a random model without a key;
        at trace time, no params, an axis that is not mapped, or gradients of another tree or shape
        than params.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.compensate(gz.Cyclic(2), strength=0.5)
      >>> state = tx.init(jnp.zeros([]))
      >>> for x in (0.0, 3.0):  # at step 1, worker 0 uses the gradient of step 0
      ...   update, state = tx.update(jnp.float32(2), state, jnp.float32(x))
      ...   print(update)
      2.0
      8.0

    Reference: Zheng et al., arXiv 1609.08326, DC-ASGD with constant and with adaptive lambda.
    """
    model = ages.check_model('compensate', model, axis_name, key)
    if checks.real('compensate', 'strength', strength) < 0 or strength != strength:
        raise ValueError(f'compensate(strength=...) must be at least 0; got {strength!r}.')
    if decay is not None and not 0 <= checks.real('compensate', 'decay', decay) < 1:
        raise ValueError(f'compensate(decay=...) must be in [0, 1), or None; got {decay!r}.')
    owner = 'compensate' if decay is None else 'compensate[adaptive]'
    made_for = validation.made_for(owner, model, axis_name)

    def init(params: PyTree) -> CompensateState:
        validation.check_real(params)
        square = () if decay is None else axes.new_local(leaves.zeros_in_memory(params), axis_name)
        past = stale.ring(params, model.bound)
        count = jnp.zeros([], jnp.int32)
        arrays = ages.first_arrays(model)
        return CompensateState(count, leaves.base_key(key), arrays, past, square, made_for)

    def update(
        updates: PyTree,
        state: State,
        params: PyTree | None = None,
        *,
        delay: Array | int | None = None,
        **extra: Any,
    ) -> tuple[PyTree, CompensateState]:
        del extra
        validation.check_state(state, CompensateState, made_for)
        if params is None:
            raise ValueError(
                'compensate measures how far the parameters have moved since a gradient was '
                'computed: call tx.update(grads, state, params).'
            )
        validation.check_updates(updates, params)
        axes.check_local(updates, axis_name, memory=state.past)
        age = ages.age(model, state, axis_name) if delay is None else jnp.asarray(delay, jnp.int32)
        then = stale.version(state.past, params, state.count, age)
        square = state.mean_square
        if decay is None:
            weights = jax.tree.map(lambda g: jnp.asarray(strength, _wide(g)), updates)
        else:
            updates = axes.nan_if_misplaced(updates, square, axis_name)
            square = _mean_square(updates, axes.unwrap_local(square, axis_name), decay)
            weights = jax.tree.map(lambda v: strength * jax.lax.rsqrt(v + SMALLEST), square)
            square = axes.wrap_local(square, axis_name)
        updates = jax.tree.map(_corrected, updates, params, then, weights)
        past = stale.remembered(state.past, params, state.count)
        count = leaves.next_count(state.count)
        return updates, state._replace(count=count, past=past, mean_square=square)

    return optax.GradientTransformationExtraArgs(init, update)


def _wide(x: Array) -> Any:
    """The dtype in which an entry is corrected."""
    return leaves.memory_like(x).dtype


def _mean_square(updates: PyTree, square: PyTree, decay: float) -> PyTree:
    return jax.tree.map(
        lambda g, v: decay * v + (1 - decay) * jnp.square(g.astype(v.dtype)), updates, square
    )


def _corrected(gradient: Array, now: Array, then: Array, weight: Array) -> Array:
    wide = weight.dtype
    g, moved = gradient.astype(wide), now.astype(wide) - then.astype(wide)
    return (g + weight * g * g * moved).astype(gradient.dtype)
