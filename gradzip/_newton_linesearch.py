"""The step to the minimum along the mean message, from the workers' losses on that line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import (
    _axes as axes,
    _collectives as collectives,
    _leaves as leaves,
    _validation as validation,
)
from gradzip._base import Array, AxisName, PyTree, State

SHARE = 0.25  # of the descent that the slope promises, which a step must have (Armijo's rule)
ROUNDING = 1e-6  # of the loss: what sums in float32 may be off by
MOST_HALVINGS = 40


class NewtonLinesearchState(NamedTuple):
    """The state of `scale_by_newton_linesearch`, the same on every worker."""

    step: Array  # f32[], the factor of the last updates
    halvings: Array  # i32[], how often the last step was halved
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def scale_by_newton_linesearch(
    axis_name: AxisName | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Descends along the updates to the minimum of the loss, as its curvature along them tells.

        t = -phi'(0) / |phi''(0)|,   phi(t) = mean_w f_w(x + t u);   x+ = x + t u

    u are the updates, the mean message of an exchange in front of it. It stands in the place of
    `optax.sgd` and has no learning rate: neither the length of u nor its sign matters. All workers
    agree on phi and its derivatives by an all-reduce of three numbers, so that t belongs to the
    exact mean of their losses, whatever the messages have lost. Where phi is not a parabola, t is
    halved until phi(t) <= phi(0) + t phi'(0) / 4 (Armijo's rule). Each trial takes a forward pass
    and an all-reduce of one number. There is one trial at least; the derivatives take about three
    forward passes.

        tx = chain(error_feedback(TopK(0.01), 'data'), scale_by_newton_linesearch('data'))
        tx.update(grads, state, params, value_fn=loss)

    Guarantee: let the mean loss F be smooth with L, g its gradient at x, and E the mean over the
    draws of the compressors. Then

        F(x+) <= F(x) - (3/16) <g, u>^2 / (L |u|^2),
        F(x+) <= F(x) - (1/2) <g, u>^2 / <u, H u>   if F is a quadratic with the Hessian H.

    For Armijo's rule holds up to |t| = (3/2) |<g, u>| / (L |u|^2), and the first t is at least two
    thirds of that since <u, H u> <= L |u|^2; halving stops above one half. A step has a quarter of
    |t <g, u>| at least. On a quadratic t is the minimum, and phi falls by one half of it. Thus the
    loss never rises, and for exact gradients on a quadratic with F - F* <= |g|^2 / (2 mu):

    - A compressor with delta on one worker: <g, u>^2 >= delta |g|^2 |u|^2, so that F - F* falls by
      a factor 1 - delta mu/L in each step.
    - Unbiased messages: E <g, u>^2 / |u|^2 >= |g|^4 / E|u|^2 by Cauchy and Schwarz, so that E F(x+)
      <= F(x) - |g|^4 / (2 L E|u|^2). The same bound holds for the step |g|^2 / (L E|u|^2), which is
      the best of all steps at x by the smoothness of F. There is no floor, even where the gradients
      of workers differ at the minimum.

    Behind a memory (`error_feedback`, `ef21`, `diana`) the loss never rises either, but no rate is
    proved. `python -m experiments.paper --claim adaptive` compares it with the best fixed step.

    Args:
      axis_name: the axis of workers, or a tuple of axes, as in the exchange; None for one worker.

    Returns:
      A transformation with the extra argument `value_fn`, the loss of this worker as a function of
      the params, as optax's line searches have it. With batches, it is the loss on the batch of the
      gradient. JAX differentiates it twice in forward mode, which functions with a `custom_vjp`
      refuse. Updates keep their shapes and dtypes. Where the loss is linear along u, there is
      no such step, and the updates are zero.

    Raises:
      TypeError: value_fn is not a function; a leaf that is not a real float.
      ValueError: at trace time, no value_fn, no params, an axis that is not mapped, or updates of
        another tree or shape than params.

    Example:
      >>> import jax, jax.numpy as jnp, optax, gradzip as gz
      >>> loss = lambda w: jnp.sum(jnp.array([1.0, 8.0]) * w**2)
      >>> tx = optax.chain(gz.compress(gz.TopK(0.5)), gz.scale_by_newton_linesearch())
      >>> w = jnp.array([3.0, 1.0])
      >>> update, _ = tx.update(jax.grad(loss)(w), tx.init(w), w, value_fn=loss)
      >>> w + update  # the entry with the larger slope is at its minimum
      Array([3., 0.], dtype=float32)

    Reference: Mutschler, Zell, arXiv 1903.11991, for a parabola along the gradient of a batch; the
      step for compressed messages and its proof are given here.
    """
    axes.names_of(axis_name)
    made_for = validation.made_for('scale_by_newton_linesearch', (), axis_name)

    def init(params: PyTree) -> NewtonLinesearchState:
        validation.check_real(params)
        return NewtonLinesearchState(jnp.zeros([], jnp.float32), jnp.zeros([], jnp.int32), made_for)

    def update(
        updates: PyTree,
        state: State,
        params: PyTree | None = None,
        *,
        value_fn: Callable[[PyTree], Array] | None = None,
        **extra: Any,
    ) -> tuple[PyTree, NewtonLinesearchState]:
        del extra
        validation.check_state(state, NewtonLinesearchState, made_for)
        along = _along(updates, params, value_fn, axis_name)
        value, slope, curvature = _derivatives(along, axis_name)
        first = jnp.where(curvature == 0, 0, -slope / jnp.abs(curvature))

        def trial(step: Array) -> Array:
            return collectives.mean(along(step), axis_name)

        def too_long(carry: tuple[Array, Array, Array]) -> Array:
            step, found, count = carry
            limit = value + SHARE * step * slope + ROUNDING * jnp.abs(value)
            return ~(found <= limit) & (count < MOST_HALVINGS)

        def halve(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            step = carry[0] / 2
            return step, trial(step), carry[2] + 1

        none = jnp.zeros([], jnp.int32)
        step, _, count = jax.lax.while_loop(too_long, halve, (first, trial(first), none))
        updates = jax.tree.map(lambda u: _times(step, u).astype(u.dtype), updates)
        return updates, NewtonLinesearchState(step, count, made_for)

    return optax.GradientTransformationExtraArgs(init, update)


def _along(
    updates: PyTree, params: PyTree | None, value_fn: Any, axis_name: AxisName | None
) -> Callable[[Array], Array]:
    """Returns this worker's loss on the line through params along the updates, f32[] to f32[]."""
    if value_fn is None or params is None:
        missing = 'value_fn' if value_fn is None else 'params'
        raise ValueError(
            f'scale_by_newton_linesearch received no {missing}: call tx.update(grads, state, '
            "params, value_fn=loss), where loss is a function of the params on this worker's batch."
        )
    if not callable(value_fn):
        raise TypeError(
            'scale_by_newton_linesearch(value_fn=...) must be a function of the params that '
            f'returns the loss; got {value_fn!r}.'
        )
    validation.check_updates(updates, params)
    if axis_name is not None:
        params, updates = axes.localize((params, updates), axis_name)

    def along(step: Array) -> Array:
        moved = jax.tree.map(lambda x, u: x + _times(step, u).astype(x.dtype), params, updates)
        return jnp.asarray(value_fn(moved), jnp.float32)

    return along


def _times(step: Array, x: Array) -> Array:
    wide = leaves.memory_like(x).dtype
    return step.astype(wide) * x.astype(wide)


def _derivatives(along: Callable[[Array], Array], axis_name: AxisName | None) -> Array:
    """Returns the mean over the workers of the loss, its slope and its curvature at 0: f32[3]."""
    zero, one = jnp.zeros([], jnp.float32), jnp.ones([], jnp.float32)

    def slope(step: Array) -> tuple[Array, Array]:
        return jax.jvp(along, (step,), (one,))

    (value, first), (_, second) = jax.jvp(slope, (zero,), (one,))
    return collectives.mean(jnp.stack([value, first, second]), axis_name)
