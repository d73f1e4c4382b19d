"""An exchange of changes to estimates, into which their own error returns with a small weight."""

from __future__ import annotations

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


class EControlState(NamedTuple):
    """`error` and `estimate` are each worker's own, the rest is the same on every worker."""

    exchange: ExchangeState
    error: PyTree  # what the estimates left out in all steps; PerWorker with an axis
    estimate: PyTree  # what the other workers assume of this gradient; PerWorker with an axis
    mean: PyTree  # the mean of the estimates of all workers
    metrics: dict[str, PyTree]
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def econtrol(
    scheme: Scheme,
    axis_name: AxisName | None = None,
    *,
    eta: float | Array,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformation:
    """EF21 with a memory: the error of the estimates is fed back with the weight eta.

        c_w = C(eta e_w + g_w - h_w);   h_w = h_w + c_w;   e_w = e_w + g_w - h_w;   u = mean_w h_w

    As in `ef21`, the differences to the estimates vanish with exact gradients. As in
    `error_feedback`, nothing is lost: the sum of all updates plus the mean of the memories equals
    the sum of the mean gradients. With noisy gradients it needs neither large batches nor momentum.
    `gradzip.theory.econtrol` returns a step size and a bound for exact gradients.

    Args:
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `data_parallel` or `jax.shard_map`.
      eta: the weight of the memory, in (0, 1], or a scalar array. The paper's is of the order of
        the compressor's delta. Below (1-q) / (2q), with q = sqrt(1 - delta), the memory is bounded.
      key: for random schemes: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`; here the target
        is what is compressed, and `mean` is the mean of the c_w.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float; a scheme that states
        neither delta nor omega.
      ValueError: eta outside (0, 1]; a random scheme without a key; at trace time, an axis that is
        not mapped, gradients that are the same on every worker, differ between workers where there
        is no axis, or are of another tree or shape than params.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.econtrol(gz.TopK(0.5), eta=0.5)
      >>> state = tx.init(jnp.zeros(2))
      >>> for _ in range(2):
      ...   update, state = tx.update(jnp.array([1.0, 2.0]), state)
      >>> update, state.error
      (Array([1.5, 2. ], dtype=float32), Array([0.5, 0. ], dtype=float32))

    Reference: Gao, Islamov, Stich, arXiv 2311.05645, algorithm 2 (EControl).
    """
    validation.check_scheme('econtrol', scheme, axis_name, key)
    checks.unit_interval_or_array('econtrol', 'eta', eta)
    metrics_lib.check(metrics)
    made_for = validation.made_for('econtrol', scheme, axis_name)

    def init(params: PyTree) -> EControlState:
        return EControlState(
            exchange=leaves.init(scheme, params, key, memory=True),
            error=axes.new_local(leaves.zeros_in_memory(params), axis_name),
            estimate=axes.new_local(leaves.zeros_in_memory(params), axis_name),
            mean=leaves.zeros_in_memory(params),
            metrics=metrics_lib.init(metrics, params),
            made_for=made_for,
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, EControlState]:
        del params
        validation.check_state(state, EControlState, made_for)
        updates, error = validation.received(updates, state.error, axis_name)
        estimate = axes.unwrap_local(state.estimate, axis_name)
        missing = optax.tree.sub(leaves.cast_like(updates, estimate), estimate)
        target = jax.tree.map(lambda d, e: d + jnp.asarray(eta, e.dtype) * e, missing, error)
        change, sent, _, exchange = leaves.exchange(
            scheme, target, state.exchange, axis_name, memory=True
        )
        error = jax.tree.map(lambda e, d, c: e + (d - c), error, missing, sent)
        estimate = optax.tree.add(estimate, sent)
        mean = optax.tree.add(state.mean, change)
        measured = metrics_lib.measure(metrics, state.metrics, target, sent, change, axis_name)
        error, estimate = (axes.wrap_local(x, axis_name) for x in (error, estimate))
        state = EControlState(exchange, error, estimate, mean, measured, made_for)
        return leaves.cast_like(mean, updates), state

    return optax.GradientTransformation(init, update)
