"""An exchange that remembers what was not sent and adds it to the next gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

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


class ErrorFeedbackState(NamedTuple):
    """The state of `error_feedback`. `error` is each worker's own, the rest the same everywhere."""

    exchange: ExchangeState
    error: PyTree  # what was not sent yet; PerWorker with an axis
    metrics: dict[str, PyTree]
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def error_feedback(
    scheme: Scheme,
    axis_name: AxisName | None = None,
    *,
    decay: float | Array = 1.0,
    memory_dtype: Any = None,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformation:
    """Adds to every gradient what earlier messages left out, compresses the sum and sends it.

        v_w = g_w + decay e_w;   u = mean_w C(v_w);   e_w = v_w - C(v_w)

    Nothing is lost: the sum of all updates plus the mean of the memories equals the sum of the mean
    gradients. A memory needs a contractive compressor, so an unbiased one is scaled until it is
    contractive (`Compressor.contractive`).

    Args:
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `data_parallel` or `jax.shard_map`.
      decay: the factor of the memory, in (0, 1]. Below 1, old errors are forgotten in time. A
        scalar array is accepted as well, so that `optax.inject_hyperparams` can schedule it.
      memory_dtype: dtype of the memory; by default the leaf's own, at least float32.
      key: for random schemes: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`.

    Returns:
      A transformation. Updates keep their shapes and dtypes. A NaN in a gradient is sent, or it
      stays in the memory for all later steps: put `skip_nonfinite` around the chain where gradients
      may be NaN.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float; a scheme that states
        neither delta nor omega.
      ValueError: decay outside (0, 1]; a random scheme without a key; at trace time, an axis that
        is not mapped, gradients that are the same on every worker, differ between workers where
        there is no axis, or are of another tree or shape than params.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.error_feedback(gz.TopK(0.5))
      >>> state = tx.init(jnp.zeros(2))
      >>> sent, state = tx.update(jnp.array([1.0, 2.0]), state)
      >>> sent, state.error
      (Array([0., 2.], dtype=float32), Array([1., 0.], dtype=float32))

    Reference: Seide et al., Interspeech 2014; Stich, Cordonnier, Jaggi, arXiv 1809.07599, algorithm
      1; Karimireddy et al., arXiv 1901.09847, algorithm 2.
    """
    validation.check_scheme('error_feedback', scheme, axis_name, key)
    if not isinstance(decay, jax.Array):  # an array may be traced, as under inject_hyperparams
        checks.unit_interval('error_feedback', 'decay', decay)
    metrics_lib.check(metrics)
    made_for = validation.made_for('error_feedback', scheme, axis_name)
    if memory_dtype is not None and not jnp.issubdtype(memory_dtype, jnp.floating):
        raise TypeError(f'memory_dtype must be a floating-point dtype; got {memory_dtype!r}.')

    def init(params: PyTree) -> ErrorFeedbackState:
        return ErrorFeedbackState(
            exchange=leaves.init(scheme, params, key, memory=True),
            error=axes.new_local(leaves.zeros_in_memory(params, memory_dtype), axis_name),
            metrics=metrics_lib.init(metrics, params),
            made_for=made_for,
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, ErrorFeedbackState]:
        del params
        validation.check_state(state, ErrorFeedbackState, made_for)
        updates, error = validation.received(updates, state.error, axis_name)
        target = leaves.add_memory(scheme, updates, state.error, decay, axis_name)
        parts = leaves.addends(scheme, updates, state.error, decay, axis_name)
        mean, sent, lost, exchange = leaves.exchange(
            scheme, target, state.exchange, axis_name, memory=True, addends=parts
        )
        error = leaves.cast_like(lost, error)
        measured = metrics_lib.measure(metrics, target, sent, mean, axis_name)
        error = axes.wrap_local(error, axis_name)
        state = ErrorFeedbackState(exchange, error, measured, made_for)
        return leaves.cast_like(mean, updates), state

    return optax.GradientTransformation(init, update)
