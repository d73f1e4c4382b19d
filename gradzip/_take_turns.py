"""One worker a step: a server that applies each gradient as it arrives."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _checks as checks, _validation as validation
from gradzip._base import Array, PyTree, State


class TakeTurnsState(NamedTuple):
    """The state of `take_turns`."""

    rows: PyTree  # the states of all workers: every leaf has a leading axis of workers
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def take_turns(
    inner: optax.GradientTransformation, workers: int
) -> optax.GradientTransformationExtraArgs:
    """Runs a transformation for one worker in every step, each worker with a state of its own.

    In a simulation of events, a step of the chain is the arrival of one gradient at a server, and
    not a round of all workers. Nothing is mapped, and only the gradient of that worker is computed:

        stale = gz.stale_params(bound)
        tx = chain(take_turns(error_feedback(TopK(0.1)), workers), sgd(rate))
        for worker, age in trace:
            late, _ = stale.read(s, params, delay=age)
            updates, state = tx.update(grad(late, worker), state, params, worker=worker, delay=age)

    Transformations that belong to the server, such as `scale_by_delay` and the optimizer, stand
    outside.

    Args:
      inner: what every worker does with its gradient, such as `error_feedback(...)` without an
        axis. A key in its state becomes another one for each worker.
      workers: how many there are, at least 1.

    Returns:
      A transformation with the extra argument `worker`, i32[], the number of the worker whose
      gradient arrives. Updates keep their shapes and dtypes. The memory is that of `inner`, times
      the number of workers. NaN is returned for a number outside [0, workers).

    Raises:
      TypeError: inner is no transformation; workers is not an integer.
      ValueError: workers below 1; in update, no worker.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.take_turns(optax.trace(0.5), workers=2)
      >>> state = tx.init(jnp.zeros([]))
      >>> for worker in (0, 0, 1):
      ...   update, state = tx.update(jnp.float32(4), state, worker=worker)
      ...   print(update)
      4.0
      6.0
      4.0
    """
    validation.check_transformation('take_turns', 'inner', inner)
    checks.integer('take_turns', 'workers', workers, 1)
    inner = optax.with_extra_args_support(inner)
    made_for = validation.made_for(f'take_turns[{workers}]', None, None)

    def init(params: PyTree) -> TakeTurnsState:
        state = inner.init(params)
        rows = jax.tree.map(lambda x: _copies(x, workers), state)
        return TakeTurnsState(rows, made_for)

    def update(
        updates: PyTree,
        state: State,
        params: PyTree | None = None,
        *,
        worker: Array | int | None = None,
        **extra: Any,
    ) -> tuple[PyTree, TakeTurnsState]:
        validation.check_state(state, TakeTurnsState, made_for)
        if worker is None:
            raise ValueError(
                'take_turns needs the number of the worker whose gradient arrives: '
                'tx.update(grads, state, params, worker=...).'
            )
        worker = jnp.asarray(worker, jnp.int32)
        row = jax.tree.map(lambda x: x[worker], state.rows)
        updates, row = inner.update(updates, row, params, **extra)
        rows = jax.tree.map(lambda x, own: x.at[worker].set(own), state.rows, row)
        known = (worker >= 0) & (worker < workers)
        updates = jax.tree.map(lambda u: jnp.where(known, u, jnp.nan), updates)
        return updates, TakeTurnsState(rows, made_for)

    return optax.GradientTransformationExtraArgs(init, update)


def _copies(x: Array, workers: int) -> Array:
    """Returns a copy for every worker; of a key, another key for every worker."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.vmap(jax.random.fold_in, (None, 0))(x, jnp.arange(workers))
    return jnp.broadcast_to(x, (workers, *x.shape))
