"""Wrappers of an exchange: where a state lives, when the exchange runs, who takes part.

Three wrappers of optax must not be used around an exchange. `optax.MultiSteps` runs it on every
micro-step and discards the result: use `every`. `optax.apply_if_finite` lets one worker skip a
collective for which the others wait: use `skip_nonfinite`. `optax.masked` leaves the leaves outside
the mask different on every worker: use `optax.partition`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from gradzip import _axes as axes, _checks as checks, _leaves as leaves, _validation as validation
from gradzip._base import Array, AxisName, Key, KeyLike, PyTree, State
from gradzip._conditional import run_one_of

Transformation = optax.GradientTransformation
WithExtraArgs = optax.GradientTransformationExtraArgs


def per_worker(inner: Transformation, axis_name: AxisName) -> WithExtraArgs:
    """Runs a transformation on each worker before the exchange, with a state of its own.

    Args:
      inner: any transformation without random draws, such as `optax.ema` or `optax.trace`.
      axis_name: the mapped axis of workers, or a tuple of axes.

    Returns:
      A transformation that does what `inner` does. Its state is marked as `PerWorker`, so that
      `state_specs` places it.

    Raises:
      TypeError: axis_name is not an axis name.
      ValueError: inner's state holds a key, so its draws would be the same on all workers.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.per_worker(optax.trace(0.9), 'data')
      >>> tx.init(jnp.zeros(3)).axes
      ('data',)
    """
    validation.check_transformation('per_worker', 'inner', inner)
    _check_axis('per_worker', axis_name)
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> PyTree:
        state = inner.init(params)
        _refuse_keys(state)
        return axes.new_local(state, axis_name)

    def update(updates: PyTree, state: PyTree, params: PyTree | None = None, **extra: Any):
        own = axes.localize(axes.unwrap_local(state, axis_name), axis_name)
        axes.check_local(updates, axis_name)
        updates = axes.nan_if_misplaced(updates, state, axis_name)
        updates, own = inner.update(updates, own, params, **extra)
        return updates, axes.wrap_local(own, axis_name)

    return WithExtraArgs(init, update)


class EveryState(NamedTuple):
    """`sum` is each worker's own; the rest is as `inner` has it."""

    count: Array  # i32[], the number of gradients since the last exchange
    sum: PyTree  # of these gradients; PerWorker with an axis
    inner: PyTree
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def every(inner: Transformation, k: int, axis_name: AxisName | None = None) -> WithExtraArgs:
    """Accumulates k gradients on the worker, then runs `inner` once on their mean.

    In the other steps the updates are zero, nothing is communicated, and inner's state does not
    change. The optimizer belongs inside:
    `every(chain(error_feedback(...), adam(...)), 4, axis_name='data')`.

    Args:
      inner: a transformation, usually a chain of an exchange and an optimizer.
      k: the number of gradients per exchange, at least 1.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker.

    Returns:
      A transformation.

    Raises:
      ValueError: k below 1; at trace time, gradients that differ between workers where there is no
        axis.
      TypeError: k is not an integer; a leaf that is not a real float.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.every(optax.sgd(1.0), 2)
      >>> state = tx.init(jnp.zeros([]))
      >>> for step in range(1, 5):
      ...   update, state = tx.update(jnp.float32(step), state)
      ...   print(update)
      0.0
      -1.5
      0.0
      -3.5
    """
    validation.check_transformation('every', 'inner', inner)
    checks.integer('every', 'k', k, 1)
    axes.names_of(axis_name)
    made_for = validation.made_for('every', k, axis_name)
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> EveryState:
        zeros = leaves.zeros_in_memory(params)
        return EveryState(
            jnp.zeros([], jnp.int32), axes.new_local(zeros, axis_name), inner.init(params), made_for
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, EveryState]:
        validation.check_state(state, EveryState, made_for)
        updates, total = validation.received(updates, state.sum, axis_name)
        total = optax.tree.add(total, leaves.cast_like(updates, total))

        def run(inner_state: PyTree) -> tuple[PyTree, PyTree]:
            mean = leaves.cast_like(optax.tree.scale(1 / k, total), updates)
            return inner.update(mean, inner_state, params, **extra)

        last = state.count == k - 1
        new, inner_state = run_one_of(last.astype(jnp.int32), [run], state.inner)
        total = jax.tree.map(lambda x: jnp.where(last, 0, x), total)
        count = (state.count + 1) % k
        return new, EveryState(count, axes.wrap_local(total, axis_name), inner_state, made_for)

    return WithExtraArgs(init, update)


class SkipNonfiniteState(NamedTuple):
    """`skipped` is the same on every worker; `inner` is as the inner transformation has it."""

    skipped: Array  # i32[], the number of steps skipped so far
    inner: PyTree


def skip_nonfinite(inner: Transformation, axis_name: AxisName | None = None) -> WithExtraArgs:
    """Skips the step on all workers if any worker's gradient holds NaN or infinity.

    A skipped step has zero updates and leaves inner's state, with its memories, unchanged. The
    check costs one all-reduce of a single integer. Put this wrapper around the whole chain.

    Args:
      inner: a transformation, usually a chain of an exchange and an optimizer.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker.

    Returns:
      A transformation; `optax.tree.get(state, 'skipped')` counts the skipped steps.

    Raises:
      TypeError: axis_name is not an axis name.
      ValueError: at trace time, an axis that is not mapped.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.skip_nonfinite(optax.sgd(1.0))
      >>> update, state = tx.update(jnp.array([1.0, jnp.nan]), tx.init(jnp.zeros(2)))
      >>> update, int(state.skipped)
      (Array([0., 0.], dtype=float32), 1)
    """
    validation.check_transformation('skip_nonfinite', 'inner', inner)
    axes.names_of(axis_name)
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> SkipNonfiniteState:
        return SkipNonfiniteState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(
        updates: PyTree, state: State, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, SkipNonfiniteState]:
        axes.check_bound(axis_name)
        finite = [jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(updates)]
        good = jnp.asarray(finite).all().astype(jnp.int32)
        if axis_name is not None:
            good = lax.pmin(good, axes.names_of(axis_name))

        def run(inner_state: PyTree) -> tuple[PyTree, PyTree]:
            return inner.update(updates, inner_state, params, **extra)

        new, inner_state = run_one_of(good, [run], state.inner)
        return new, SkipNonfiniteState(state.skipped + 1 - good, inner_state)

    return WithExtraArgs(init, update)


class ParticipateState(NamedTuple):
    """The state of `participate`, the same on every worker."""

    count: Array  # i32[], the number of steps taken
    key: Key
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def participate(count: int, axis_name: AxisName, *, key: KeyLike) -> Transformation:
    """Lets `count` random workers take part in each step, with gradients scaled by W / count.

    The other workers contribute zero, and the mean over the workers stays unbiased. With more than
    one worker this is the mini-batch method, and with one the incremental gradient method. It
    belongs before the exchange.

    Args:
      count: the number of workers per step, from 1 to the number of workers W.
      axis_name: the mapped axis of workers, or a tuple of axes.
      key: an int or a typed key, the same on all workers.

    Returns:
      A transformation.

    Raises:
      ValueError: count below 1; at trace time, above W, or an axis that is not mapped.
      TypeError: count is not an integer, or key is not a key.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> tx = gz.participate(1, 'data', key=0)
      >>> state = tx.init(0.0)
      >>> jnp.sort(jax.vmap(lambda g: tx.update(g, state)[0], axis_name='data')(jnp.ones(3)))
      Array([0., 0., 3.], dtype=float32)

    Reference: Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573, the mini-batch and incremental
    variants.
    """
    checks.integer('participate', 'count', count, 1)
    _check_axis('participate', axis_name)
    validation.check_key(key)
    if key is None:
        raise ValueError('participate draws random workers: pass key=, an int or a typed key.')
    made_for = validation.made_for('participate', count, axis_name)

    def init(params: PyTree) -> ParticipateState:
        del params
        return ParticipateState(jnp.zeros([], jnp.int32), leaves.base_key(key), made_for)

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, ParticipateState]:
        del params
        validation.check_state(state, ParticipateState, made_for)
        axes.check_local(updates, axis_name)
        workers = axes.worker_count(axis_name)
        if count > workers:
            raise ValueError(
                f'participate(count={count}) on axis {axis_name!r}, which has {workers} workers: '
                f'count must be at most {workers}.'
            )
        order = jax.random.permutation(leaves.step_key(state), workers)
        drawn = jnp.argmax(order == axes.worker_index(axis_name)) < count
        updates = jax.tree.map(lambda g: jnp.where(drawn, g * (workers / count), 0), updates)
        return updates, ParticipateState(leaves.next_count(state.count), state.key, made_for)

    return Transformation(init, update)


def _check_axis(owner: str, axis_name: AxisName | None) -> None:
    if not axes.names_of(axis_name):
        raise TypeError(
            f'{owner}(axis_name=...) must name the axis of workers; for one worker, leave {owner} '
            'out.'
        )


def _refuse_keys(state: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(
                f'per_worker: the inner state holds a key at {axes.path_of(path)!r}, so its draws '
                'would be the same on all workers. Use a transformation that takes axis_name and '
                'folds in the worker.'
            )
