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
    _narrow as narrow,
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
    drop: float | Array = 1.0,
    memory_dtype: Any = None,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformation:
    """Adds to every gradient what earlier messages left out, compresses the sum and sends it.

        v_w = g_w + decay e_w;   u = mean_w C(v_w);   e_w = v_w - drop C(v_w)

    Nothing is lost with decay 1: the sum of `drop` times all updates plus the mean of the memories
    equals the sum of the mean gradients. A memory needs a contractive compressor, so an unbiased
    one is scaled until it is contractive (`Compressor.contractive`).

    The memories of several methods follow this rule:

    - classical error feedback: decay 1 and drop 1, the defaults.
    - SparseLoCo (arXiv 2508.15706): decay 0.95, drop 1, with the change of the parameters over
      many local steps in place of a gradient, and plain SGD behind.
    - DeMo (arXiv 2411.19870): decay 0.999, drop 1, the learning rate in front of the memory and the
      sign behind it: `chain(scale(lr), error_feedback(DCT(BlockTopK(32, 4096), 4096), axis,
      decay=0.999), scale_by_sign(), sgd(1.0))`. (DeMo transforms squares of 64 x 64 entries; `DCT`
      transforms blocks of consecutive entries.)
    - Dion (arXiv 2504.05295): decay 1, drop 1 - mu, with `PowerSGD` and an orthonormalisation
      behind it. What is sent stays in the memory with the factor mu: a compressor that loses
      nothing makes the memory mu (e + g), which is momentum. The basis then hardly turns, so that
      what workers lastingly disagree on is never sent, and the memory grows; a decay below 1
      bounds it.

    Without an axis and behind an exchange, the same transformation is a server that compresses what
    it sends back, with a memory of its own (two-sided compression, as in DoubleSqueeze):
    `chain(error_feedback(TopK(0.01), 'data'), error_feedback(TopK(0.01)), sgd(0.1))`. Every worker
    runs the same server. That gives a parameter server's iterates, but it saves no traffic under
    `Gather`, which sends each worker's message to all workers; `TwoShot` does both in collectives.

    Args:
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `data_parallel` or `jax.shard_map`.
      decay: the factor of the memory, in (0, 1]. Below 1, old errors are forgotten in time. A
        scalar array is accepted as well, so that `optax.inject_hyperparams` can schedule it.
      drop: the share of what was sent that leaves the memory, in (0, 1], or a scalar array.
      memory_dtype: dtype of the memory; by default the leaf's own, at least float32. In 'bfloat16'
        or in 'int8', where blocks of 256 entries share a scale, the memory is rounded at random, so
        that nothing is lost in expectation. It then takes 16 or 8.1 bits an entry, and needs a key.
      key: for random schemes and roundings: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`.

    Returns:
      A transformation. Updates keep their shapes and dtypes. A NaN in a gradient is sent, or it
      stays in the memory for all later steps: put `skip_nonfinite` around the chain where gradients
      may be NaN.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float; a scheme that states
        neither delta nor omega.
      ValueError: decay or drop outside (0, 1]; a random scheme, or a memory that is rounded at
        random, without a key; at trace time, an axis that is not mapped, gradients that are the
        same on every worker, differ between workers where there is no axis, or are of another tree
        or shape than params.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.error_feedback(gz.TopK(0.5))
      >>> state = tx.init(jnp.zeros(2))
      >>> sent, state = tx.update(jnp.array([1.0, 2.0]), state)
      >>> sent, state.error
      (Array([0., 2.], dtype=float32), Array([1., 0.], dtype=float32))

    Reference: Seide et al., Interspeech 2014; Stich, Cordonnier, Jaggi, arXiv 1809.07599, algorithm
      1; Karimireddy et al., arXiv 1901.09847, algorithm 2. Two-sided compression: Tang et al.,
      arXiv 1905.05957.
    """
    validation.check_scheme('error_feedback', scheme, axis_name, key)
    for name, value in (('decay', decay), ('drop', drop)):
        checks.unit_interval_or_array('error_feedback', name, value)
    metrics_lib.check(metrics)
    dtype = narrow.check_dtype('error_feedback', memory_dtype)
    owner = 'error_feedback' if dtype is None else f'error_feedback[{dtype.name}]'
    made_for = validation.made_for(owner, scheme, axis_name)
    at_random = narrow.rounds_at_random(dtype)
    if at_random and key is None:
        raise ValueError(
            f'error_feedback(memory_dtype={memory_dtype!r}) rounds the memory at random: pass '
            'key=, an int or a typed key.'
        )

    def init(params: PyTree) -> ErrorFeedbackState:
        return ErrorFeedbackState(
            exchange=leaves.init(scheme, params, key, memory=True),
            error=axes.new_local(narrow.zeros(params, dtype), axis_name),
            metrics=metrics_lib.init(metrics, params),
            made_for=made_for,
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, ErrorFeedbackState]:
        del params
        validation.check_state(state, ErrorFeedbackState, made_for)
        gradients = updates
        updates, error = validation.received(updates, state.error, axis_name)
        target = leaves.add_memory(scheme, updates, state.error, decay, axis_name)
        parts = leaves.addends(scheme, gradients, state.error, decay, axis_name)
        mean, sent, lost, exchange = leaves.exchange(
            scheme, target, state.exchange, axis_name, memory=True, addends=parts
        )
        kept = _kept(lost, sent, drop)
        if at_random:
            error = narrow.stored(kept, dtype, leaves.worker_key(state.exchange, axis_name))
        else:
            error = leaves.cast_like(kept, error)
        measured = metrics_lib.measure(metrics, state.metrics, target, sent, mean, axis_name)
        error = axes.wrap_local(error, axis_name)
        state = ErrorFeedbackState(exchange, error, measured, made_for)
        return leaves.cast_like(mean, updates), state

    return optax.GradientTransformation(init, update)


def _kept(lost: PyTree, sent: PyTree, drop: float | Array) -> PyTree:
    """Returns v - drop sent, where v = lost + sent. With drop 1 the driver has written it."""
    if not isinstance(drop, jax.Array) and drop == 1:
        return lost
    return jax.tree.map(lambda a, b: a + jnp.asarray(1 - drop, b.dtype) * b, lost, sent)
