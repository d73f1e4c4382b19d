"""An optimizer that waits for a batch of gradients of the current parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _checks as checks, _leaves as leaves, _validation as validation
from gradzip._base import Array, PyTree, State
from gradzip._conditional import run_one_of


class FreshBatchesState(NamedTuple):
    """The state of `fresh_batches`."""

    since: Array  # i32[], gradients that have arrived since the parameters changed
    fresh: Array  # i32[], those of them that were computed at these parameters
    sum: PyTree  # of the fresh ones, in at least float32
    inner: PyTree
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def fresh_batches(
    inner: optax.GradientTransformation, size: int
) -> optax.GradientTransformationExtraArgs:
    """Runs an optimizer on the mean of `size` gradients of the same parameters, and drops old ones.

    A server that receives one gradient a step, as with `take_turns`, uses a gradient if it was
    computed at the parameters of the moment, and drops it otherwise. After `size` of them it runs
    `inner` with their mean; until then, updates are zero. Any optimizer then sees gradients without
    delay, of less variance. If a share q of the delays is at most tau_q, a batch of about tau_q is
    complete after about tau_q / q gradients, however late the others are.

    Args:
      inner: any transformation, such as `optax.adam(...)`.
      size: gradients of a batch, at least 1.

    Returns:
      A transformation with the extra argument `delay`, i32[], the age of the gradient in steps.
      Updates keep their shapes and dtypes. The memory is one array for each gradient.

    Raises:
      TypeError: inner is no transformation; size is not an integer; a leaf that is not a real
        float.
      ValueError: size below 1; in update, no delay, or gradients of another tree or shape than
        params.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.fresh_batches(optax.sgd(1.0), 2)
      >>> state = tx.init(jnp.zeros([]))
      >>> for g, age in ((1, 0), (3, 1), (5, 1), (7, 1), (9, 0)):  # (5, 1) was computed before
      ...   update, state = tx.update(jnp.float32(g), state, delay=age)
      ...   print(update)
      0.0
      -2.0
      0.0
      0.0
      -8.0

    Reference: Attia, Gaash, Koren, arXiv 2408.07503, asynchronous mini-batching.
    """
    validation.check_transformation('fresh_batches', 'inner', inner)
    checks.integer('fresh_batches', 'size', size, 1)
    inner = optax.with_extra_args_support(inner)
    made_for = validation.made_for(f'fresh_batches[{size}]', None, None)

    def init(params: PyTree) -> FreshBatchesState:
        validation.check_real(params)
        since, fresh = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        total = leaves.zeros_in_memory(params)
        return FreshBatchesState(since, fresh, total, inner.init(params), made_for)

    def update(
        updates: PyTree,
        state: State,
        params: PyTree | None = None,
        *,
        delay: Array | int | None = None,
        **extra: Any,
    ) -> tuple[PyTree, FreshBatchesState]:
        validation.check_state(state, FreshBatchesState, made_for)
        if delay is None:
            raise ValueError(
                'fresh_batches needs the age of the gradient, in steps: '
                'tx.update(grads, state, params, delay=...).'
            )
        validation.check_updates(updates, state.sum)
        good = jnp.asarray(delay, jnp.int32) <= state.since
        total = jax.tree.map(
            lambda s, g: s + jnp.where(good, g.astype(s.dtype), 0), state.sum, updates
        )
        fresh = state.fresh + good.astype(jnp.int32)
        full = fresh == size

        def run(inner_state: PyTree) -> tuple[PyTree, PyTree]:
            mean = leaves.cast_like(jax.tree.map(lambda s: s / size, total), updates)
            return inner.update(mean, inner_state, params, **extra)

        updates, inner_state = run_one_of(full.astype(jnp.int32), [run], state.inner)
        total = jax.tree.map(lambda s: jnp.where(full, 0, s), total)
        fresh = jnp.where(full, 0, fresh)
        since = jnp.where(full, 0, leaves.next_count(state.since))
        return updates, FreshBatchesState(since, fresh, total, inner_state, made_for)

    return optax.GradientTransformationExtraArgs(init, update)
