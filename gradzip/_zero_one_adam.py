"""0/1 Adam: frozen squares, and steps of each worker's own between two compressed exchanges.

The params stay what all workers have in common, as in `local_steps`: a worker's own params differ
from them by an offset, which is part of the state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import (
    _axes as axes,
    _checks as checks,
    _collectives as collectives,
    _leaves as leaves,
    _validation as validation,
)
from gradzip._base import Array, AxisName, PyTree, State
from gradzip._conditional import run_one_of


class ZeroOneAdamState(NamedTuple):
    """`momentum` and `offset` are each worker's own, the rest is the same on every worker."""

    count: Array  # i32[], the number of steps
    since: Array  # i32[], the number of steps since the last exchange
    weights: Array  # f32[], the sum of the learning rates of these steps
    refreshes: Array  # i32[], how often the squares were measured
    momentum: PyTree  # PerWorker with an axis
    offset: PyTree  # own params minus common params; PerWorker with an axis
    squares: PyTree  # a mean of squared mean gradients
    exchange: PyTree
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def zero_one_adam(
    learning_rate: optax.ScalarOrSchedule,
    exchange: optax.GradientTransformation,
    axis_name: AxisName | None = None,
    *,
    warmup: int,
    refresh: int = 16,
    double_every: int = 1000,
    longest: int = 16,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> optax.GradientTransformationExtraArgs:
    """0/1 Adam: compressed from the first step, and in most steps nothing is sent.

    With m_w = b1 m_w + (1 - b1) g_w and the root r of the squares, a worker's own params move by
    -rate m_w / r in every step. When an exchange is due,

        u = exchange(sum over the steps since the last one of rate m_w)
        params = params - u / r;   m_w = u / (sum of the rates);   own params = params

    In the first `warmup` steps an exchange is due in each, and the squares of the exact mean
    gradient are averaged in some: `refresh` times in every step, as often in every second step,
    then in every fourth. After the warm-up the squares stay, and the steps from one exchange to the
    next double after every `double_every` steps, up to `longest`. Both biases are corrected as in
    Adam; `rate` is then that of Adam over 1 - b1^t.

    Gradients must be taken at `gz.local_params(params, state, axis_name)`, and params must be
    changed by these updates alone. An entry whose gradient was zero in all refreshes has no scale,
    and is not moved from then on: one-bit schemes cannot send a zero.

        tx = zero_one_adam(1e-3, error_feedback(TwoShot(ScaledSign()), 'data'), 'data', warmup=1000)

    Args:
      learning_rate: a number or a schedule.
      exchange: a transformation that averages over the workers, such as `error_feedback`.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker.
      warmup: the number of steps with an exchange in each, in which squares are measured, at least
        1.
      refresh: how often the squares are measured before the steps between double, at least 1.
      double_every: the number of steps after which the time between exchanges doubles, at least 1.
      longest: the largest number of steps from an exchange to the next, at least 1.
      b1: the decay of the momentum, in [0, 1).
      b2: the decay of the squares, in [0, 1).
      eps: added to the root of the squares, above 0.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float.
      ValueError: numbers outside of the ranges above; at trace time, gradients that are the same on
        every worker, differ between workers where there is no axis, or are of another tree or shape
        than params.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.zero_one_adam(0.1, gz.error_feedback(gz.ScaledSign()), warmup=100)
      >>> tx.update(jnp.array([3.0, -3.0]), tx.init(jnp.zeros(2)))[0].round(3)
      Array([-0.1,  0.1], dtype=float32)

    Reference: Lu et al., arXiv 2202.06009, algorithm 1 and its policies, with Adam's corrections of
      the biases.
    """
    validation.check_transformation('zero_one_adam', 'exchange', exchange)
    axes.names_of(axis_name)
    for name, number in (
        ('warmup', warmup),
        ('refresh', refresh),
        ('double_every', double_every),
        ('longest', longest),
    ):
        checks.integer('zero_one_adam', name, number, 1)
    for name, value in (('b1', b1), ('b2', b2)):
        checks.below_one('zero_one_adam', name, value)
    if not checks.real('zero_one_adam', 'eps', eps) > 0:
        raise ValueError(f'zero_one_adam(eps=...) must be above 0; got {eps!r}.')
    if not callable(learning_rate):
        checks.positive_or_array('zero_one_adam', 'learning_rate', learning_rate)
    rhythm = f'{warmup=}, {refresh=}, {double_every=}, {longest=}'
    made_for = validation.made_for('zero_one_adam', rhythm, axis_name)
    exchange = optax.with_extra_args_support(exchange)

    def init(params: PyTree) -> ZeroOneAdamState:
        validation.check_real(params)
        zeros = leaves.zeros_in_memory
        return ZeroOneAdamState(
            count=jnp.zeros([], jnp.int32),
            since=jnp.zeros([], jnp.int32),
            weights=jnp.zeros([], jnp.float32),
            refreshes=jnp.zeros([], jnp.int32),
            momentum=axes.new_local(zeros(params), axis_name),
            offset=axes.new_local(zeros(params), axis_name),
            squares=zeros(params),
            exchange=exchange.init(zeros(params)),
            made_for=made_for,
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, ZeroOneAdamState]:
        validation.check_state(state, ZeroOneAdamState, made_for)
        gradients, offset = validation.received(updates, state.offset, axis_name)
        gradients = leaves.cast_like(gradients, offset)
        own = jax.tree.map(
            lambda m, g: b1 * m + (1 - b1) * g,
            axes.unwrap_local(state.momentum, axis_name),
            gradients,
        )
        count, since = leaves.next_count(state.count), state.since + 1

        def measure(squares: PyTree) -> tuple[PyTree, PyTree]:
            means = collectives.mean(gradients, axis_name)
            return (), jax.tree.map(lambda s, g: b2 * s + (1 - b2) * g * g, squares, means)

        measured = refresh_due(state.count, warmup, refresh).astype(jnp.int32)
        _, squares = run_one_of(measured, [measure], state.squares)
        refreshes = state.refreshes + measured
        bias = 1 - jnp.float32(b2) ** refreshes.astype(jnp.float32)
        roots = jax.tree.map(lambda s: jnp.sqrt(s / bias.astype(s.dtype)) + eps, squares)

        def scaled(x: Array, s: Array, r: Array) -> Array:
            return jnp.where(s > 0, x / r, 0)

        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        weight = jnp.float32(rate) / (1 - jnp.float32(b1) ** count.astype(jnp.float32))
        weights = state.weights + weight
        steps = jax.tree.map(scaled, own, squares, roots)
        moved = jax.tree.map(lambda o, x: o - weight.astype(x.dtype) * x, offset, steps)

        def synchronise(inner: PyTree) -> tuple[PyTree, PyTree]:
            summed = jax.tree.map(lambda o, r: -o * r, moved, roots)
            mean, inner = exchange.update(summed, inner, params, **extra)
            mean = leaves.cast_like(mean, squares)
            new = jax.tree.map(lambda u, s, r: -scaled(u, s, r), mean, squares, roots)
            total = jnp.where(weights > 0, weights, 1)
            return (new, jax.tree.map(lambda u: u / total.astype(u.dtype), mean)), inner

        due = since >= spacing(state.count, warmup, double_every, longest)
        turn = due.astype(jnp.int32)
        (new, common), exchanged = run_one_of(turn, [synchronise], state.exchange)
        known = due & (weights > 0)  # a rate of zero says nothing about the momentum
        own = jax.tree.map(lambda c, m: jnp.where(known, c, m), common, own)
        offset = jax.tree.map(lambda o: jnp.where(due, 0, o), moved)
        own, offset = (axes.wrap_local(x, axis_name) for x in (own, offset))
        state = ZeroOneAdamState(
            count=count,
            since=jnp.where(due, 0, since),
            weights=jnp.where(due, 0, weights),
            refreshes=refreshes,
            momentum=own,
            offset=offset,
            squares=squares,
            exchange=exchanged,
            made_for=made_for,
        )
        return leaves.cast_like(new, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def refresh_due(count: Array, warmup: int, refresh: int) -> Array:
    """Whether the squares are measured after so many steps: bool[]."""
    doublings = 31 - jax.lax.clz(count // refresh + 1)
    first = refresh * (jnp.left_shift(1, doublings) - 1)  # step since which it doubled so often
    return (count < warmup) & ((count - first) % jnp.left_shift(1, doublings) == 0)


def spacing(count: Array, warmup: int, double_every: int, longest: int) -> Array:
    """The number of steps from an exchange to the next, after so many steps: i32[]."""
    doublings = jnp.maximum(count - warmup, 0) // double_every
    return jnp.minimum(jnp.left_shift(1, jnp.minimum(doublings, 30)), longest)
