"""An exchange that sends the change of each gradient since the last message (EF21)."""

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


class EF21State(NamedTuple):
    """The state of `ef21`. `estimate` is each worker's own, the rest the same on every worker."""

    exchange: ExchangeState
    estimate: PyTree  # what the other workers assume of this gradient; PerWorker with an axis
    mean: PyTree  # the mean of the estimates of all workers
    metrics: dict[str, PyTree]
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def ef21(
    scheme: Scheme,
    axis_name: AxisName | None = None,
    *,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformation:
    """Sends the compressed difference to an estimate, and steps along the mean estimate.

        c_w = C(g_w - h_w);   h_w = h_w + c_w;   u = h = h + mean_w c_w

    The estimates start at zero. With exact gradients the differences vanish in time, so that every
    contractive compressor converges to the right point with a constant step-size. With noisy
    gradients, put a momentum in front: `chain(per_worker(optax.ema(0.9), axis), ef21(...), ...)`.

    Args:
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `data_parallel` or `jax.shard_map`.
      key: for random schemes: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`; here the target
        is the difference g_w - h_w, and `mean` is the mean of the c_w.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float; a scheme that states
        neither delta nor omega.
      ValueError: a random scheme without a key; at trace time, an axis that is not mapped,
        gradients that are the same on every worker, differ between workers where there is no
        axis, or are of another tree or shape than params.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.ef21(gz.TopK(0.5))
      >>> state = tx.init(jnp.zeros(2))
      >>> for _ in range(2):
      ...   update, state = tx.update(jnp.array([1.0, 2.0]), state)
      >>> update
      Array([1., 2.], dtype=float32)

    Reference: Richtarik, Sokolov, Fatkhullin, arXiv 2106.05203, algorithm 2.
    """
    validation.check_scheme('ef21', scheme, axis_name, key)
    metrics_lib.check(metrics)
    made_for = validation.made_for('ef21', scheme, axis_name)

    def init(params: PyTree) -> EF21State:
        return EF21State(
            exchange=leaves.init(scheme, params, key, memory=True),
            estimate=axes.new_local(leaves.zeros_in_memory(params), axis_name),
            mean=leaves.zeros_in_memory(params),
            metrics=metrics_lib.init(metrics, params),
            made_for=made_for,
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, EF21State]:
        del params
        validation.check_state(state, EF21State, made_for)
        updates, estimate = validation.received(updates, state.estimate, axis_name)
        target = optax.tree.sub(leaves.cast_like(updates, estimate), estimate)
        change, sent, _, exchange = leaves.exchange(
            scheme, target, state.exchange, axis_name, memory=True
        )
        mean = optax.tree.add(state.mean, change)
        measured = metrics_lib.measure(metrics, target, sent, change, axis_name)
        estimate = axes.wrap_local(optax.tree.add(estimate, sent), axis_name)
        state = EF21State(exchange, estimate, mean, measured, made_for)
        return leaves.cast_like(mean, updates), state

    return optax.GradientTransformation(init, update)
