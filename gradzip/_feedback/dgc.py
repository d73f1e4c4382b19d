"""Deep gradient compression: what is accumulated until it is sent is momentum, not gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import (
    _axes as axes,
    _checks as checks,
    _leaves as leaves,
    _validation as validation,
    metrics as metrics_lib,
)
from gradzip._base import Array, AxisName, KeyLike, PyTree, Scheme, State
from gradzip._leaves import ExchangeState


class DGCState(NamedTuple):
    """`velocity` and `error` are each worker's own, the rest is the same on every worker."""

    exchange: ExchangeState
    velocity: PyTree  # momentum of this worker's gradients; PerWorker with an axis
    error: PyTree  # the velocities that were not sent yet; PerWorker with an axis
    metrics: dict[str, PyTree]
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def dgc(
    scheme: Scheme,
    axis_name: AxisName | None = None,
    *,
    momentum: float | Array = 0.9,
    nesterov: bool = False,
    masking: bool = True,
    clip: float | None = None,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformation:
    """Error feedback of each worker's momentum, for sparse schemes (deep gradient compression).

        g_w = g_w min(1, clip / (sqrt(W) |g_w|))                          W workers
        v_w = momentum v_w + g_w;   b_w = e_w + v_w                       momentum correction
        u = mean_w C(b_w);          e_w = b_w - C(b_w)
        v_w = 0 where an entry was sent                                   momentum factor masking

    An entry that waits in the memory accumulates what SGD with momentum would have moved it by, so
    the optimizer behind it is plain SGD: `chain(dgc(...), sgd(0.1))`. The method sends ever fewer
    entries in its first epochs, which is a schedule of the scheme, with `b` the steps of an epoch:

        Schedule((TopK(0.25), TopK(0.0625), TopK(0.015625), TopK(0.004), TopK(0.001)),
                 (b, 2 * b, 3 * b, 4 * b))

    Args:
      scheme: a sparse Compressor, such as `TopK` or `Threshold`, a Reducer of one, or a function
        from a leaf (shape and dtype) to one of these. Under a scheme that sends every entry,
        masking leaves no momentum.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `data_parallel` or `jax.shard_map`.
      momentum: the factor of the velocity, in [0, 1), or a scalar array.
      nesterov: whether to use Nesterov's momentum: v = momentum (v + g), b = e + v + g.
      masking: whether the velocity of what was sent is set to zero. It keeps stale momentum from
        moving an entry in a direction that it has left since.
      clip: the largest norm of the mean gradient of independent workers, above 0; each worker clips
        the norm of its own, over all leaves, to clip / sqrt(W). None clips nothing.
      key: for random schemes: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`; here the target
        is b_w.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float; a scheme that states
        neither delta nor omega.
      ValueError: momentum outside [0, 1), or clip not above 0; a random scheme without a key; at
        trace time, an axis that is not mapped, gradients that are the same on every worker, differ
        between workers where there is no axis, or are of another tree or shape than params.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.dgc(gz.TopK(0.5), momentum=0.5)
      >>> state = tx.init(jnp.zeros(2))
      >>> for _ in range(2):
      ...   update, state = tx.update(jnp.array([1.0, 1.5]), state)
      >>> update, state.velocity  # of the first entry, 1 and then 1.5 have been accumulated
      (Array([2.5, 0. ], dtype=float32), Array([0. , 1.5], dtype=float32))

    Reference: Lin, Han, Mao, Wang, Dally, arXiv 1712.01887, algorithm 4.
    """
    validation.check_scheme('dgc', scheme, axis_name, key)
    _check(momentum, clip, nesterov=nesterov, masking=masking)
    metrics_lib.check(metrics)
    made_for = validation.made_for('dgc', scheme, axis_name)

    def init(params: PyTree) -> DGCState:
        return DGCState(
            exchange=leaves.init(scheme, params, key, memory=True),
            velocity=axes.new_local(leaves.zeros_in_memory(params), axis_name),
            error=axes.new_local(leaves.zeros_in_memory(params), axis_name),
            metrics=metrics_lib.init(metrics, params),
            made_for=made_for,
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, DGCState]:
        del params
        validation.check_state(state, DGCState, made_for)
        updates, velocity = validation.received(updates, state.velocity, axis_name)
        gradients = _clipped(leaves.cast_like(updates, velocity), clip, axis_name)
        velocity, moved = _moved(velocity, gradients, momentum, nesterov=nesterov)
        target = leaves.add_memory(scheme, moved, state.error, 1.0, axis_name)
        mean, sent, error, exchange = leaves.exchange(
            scheme, target, state.exchange, axis_name, memory=True
        )
        if masking:
            velocity = jax.tree.map(lambda v, s: jnp.where(s == 0, v, 0), velocity, sent)
        measured = metrics_lib.measure(metrics, state.metrics, target, sent, mean, axis_name)
        velocity, error = (axes.wrap_local(x, axis_name) for x in (velocity, error))
        state = DGCState(exchange, velocity, error, measured, made_for)
        return leaves.cast_like(mean, updates), state

    return optax.GradientTransformation(init, update)


def _clipped(gradients: PyTree, clip: float | None, axis_name: AxisName | None) -> PyTree:
    """Returns gradients whose norm over all leaves is at most clip / sqrt(W)."""
    if clip is None:
        return gradients
    limit = clip / math.sqrt(axes.worker_count(axis_name))
    factor = limit / jnp.maximum(optax.tree.norm(gradients), limit)
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), gradients)


def _moved(
    velocity: PyTree, gradients: PyTree, momentum: float | Array, *, nesterov: bool
) -> tuple[PyTree, PyTree]:
    """Returns the new velocity, and by how much SGD with momentum would move the parameters."""

    def times(v: Array) -> Array:
        return jnp.asarray(momentum, v.dtype) * v

    if not nesterov:
        velocity = jax.tree.map(lambda v, g: times(v) + g, velocity, gradients)
        return velocity, velocity
    velocity = jax.tree.map(lambda v, g: times(v + g), velocity, gradients)
    return velocity, optax.tree.add(velocity, gradients)


def _check(momentum: float | Array, clip: float | None, **flags: bool) -> None:
    known = 0.0 if isinstance(momentum, jax.Array) else checks.real('dgc', 'momentum', momentum)
    if not 0 <= known < 1:  # NaN fails every comparison
        raise ValueError(f'dgc(momentum=...) must be in [0, 1); got {momentum!r}.')
    if clip is not None and not checks.real('dgc', 'clip', clip) > 0:
        raise ValueError(f'dgc(clip=...) must be above 0, or None; got {clip!r}.')
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f'dgc({name}=...) must be True or False; got {flag!r}.')
