"""An exchange without memory: what the compressor loses is lost."""

from __future__ import annotations

from typing import NamedTuple

import optax

from gradzip import (
    _axes as axes,
    _leaves as leaves,
    _validation as validation,
    metrics as metrics_lib,
)
from gradzip._base import AxisName, KeyLike, PyTree, Scheme, State
from gradzip._leaves import ExchangeState


class CompressState(NamedTuple):
    """The state of `compress`, the same on every worker."""

    exchange: ExchangeState
    metrics: dict[str, PyTree]
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def compress(
    scheme: Scheme,
    axis_name: AxisName | None = None,
    *,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformation:
    """Replaces gradients by the mean of what the workers send of them: u = mean_w C(g_w).

    With an unbiased compressor this is compressed gradient descent. With a biased one, such as TopK
    or ScaledSign, it converges to the wrong point: use `error_feedback`.

    Args:
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `data_parallel` or `jax.shard_map`.
      key: for random schemes: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: scheme, key or metrics is of another kind; a leaf that is not a real float.
      ValueError: a random scheme without a key; at trace time, an axis that is not mapped,
        gradients that are the same on every worker or of another tree than params.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = optax.chain(gz.compress(gz.TopK(0.5)), optax.sgd(1.0))
      >>> params = jnp.zeros(4)
      >>> tx.update(jnp.array([1.0, -4.0, 2.0, 0.0]), tx.init(params), params)[0]
      Array([-0.,  4., -2., -0.], dtype=float32)

    Reference: Khirirat, Feyzmahdavian, Johansson, arXiv 1806.06573.
    """
    validation.check_scheme('compress', scheme, axis_name, key)
    metrics_lib.check(metrics)
    made_for = validation.made_for('compress', scheme, axis_name)

    def init(params: PyTree) -> CompressState:
        return CompressState(
            exchange=leaves.init(scheme, params, key, memory=False),
            metrics=metrics_lib.init(metrics, params),
            made_for=made_for,
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, CompressState]:
        validation.check_state(state, CompressState, made_for)
        validation.check_updates(updates, updates if params is None else params)
        axes.check_local(updates, axis_name)
        target = leaves.in_memory_dtype(updates)
        mean, sent, _, exchange = leaves.exchange(
            scheme, target, state.exchange, axis_name, memory=False
        )
        measured = metrics_lib.measure(metrics, state.metrics, target, sent, mean, axis_name)
        return leaves.cast_like(mean, updates), CompressState(exchange, measured, made_for)

    return optax.GradientTransformation(init, update)
