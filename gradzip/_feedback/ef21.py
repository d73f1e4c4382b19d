"""An exchange that sends the change of each gradient since the last message (EF21)."""

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


class EF21State(NamedTuple):
    """The state of `ef21`. `estimate` is each worker's own, the rest the same on every worker."""

    exchange: ExchangeState
    momentum: PyTree  # the average of this worker's gradients; PerWorker with an axis, None without
    estimate: PyTree  # what the other workers assume of this gradient; PerWorker with an axis
    mean: PyTree  # the mean of the estimates of all workers
    metrics: dict[str, PyTree]
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def ef21(
    scheme: Scheme,
    axis_name: AxisName | None = None,
    *,
    momentum: float | Array | optax.Schedule | None = None,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformation:
    """Sends the compressed difference to an estimate, and steps along the mean estimate.

        c_w = C(g_w - h_w);   h_w = h_w + c_w;   u = h = h + mean_w c_w

    The estimates start at zero. With exact gradients the differences vanish in time, so that every
    contractive compressor converges to the right point with a constant step-size, such as that of
    `gradzip.theory.ef21`.

    With noisy gradients, pass `momentum=eta`. Each worker then sends the change of an average of
    its gradients (EF21-SGDM), which starts at the first gradient and is not debiased:

        v_w = (1 - eta) v_w + eta g_w;   c_w = C(v_w - h_w)

    An optimizer with momentum behind it would average twice.

    Normalised EF21 with momentum (arXiv 2511.14501) needs no constant of the problem: updates are
    divided by their norm, and the step and eta decrease. The paper states a rate near 1 / T^(1/4)
    after T steps. The exponents here are the usual ones of normalised SGD with momentum, which has
    that rate; they have not been compared with the paper's:

        chain(ef21(TopK(0.01), 'data', momentum=lambda t: (2 / (t + 2)) ** 0.5),
              normalize_by_update_norm(),
              scale_by_learning_rate(lambda t: (2 / (t + 2)) ** 0.75))

    Args:
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `data_parallel` or `jax.shard_map`.
      momentum: the weight eta of the new gradient in the average, in (0, 1], a scalar array, or a
        function of the number of steps taken. It is 0.1 where optax writes a decay of 0.9. None,
        as 1, means that the gradients themselves are sent.
      key: for random schemes: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`; here the target
        is the difference g_w - h_w or v_w - h_w, and `mean` is the mean of the c_w.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float; a scheme that states
        neither delta nor omega.
      ValueError: momentum outside (0, 1]; a random scheme without a key; at trace time, an axis
        that is not mapped, gradients that are the same on every worker, differ between workers
        where there is no axis, or are of another tree or shape than params.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.ef21(gz.TopK(0.5))
      >>> state = tx.init(jnp.zeros(2))
      >>> for _ in range(2):
      ...   update, state = tx.update(jnp.array([1.0, 2.0]), state)
      >>> update
      Array([1., 2.], dtype=float32)

    Reference: Richtarik, Sokolov, Fatkhullin, arXiv 2106.05203, algorithm 2; with momentum,
      Fatkhullin, Tyurin, Richtarik, arXiv 2305.15155, algorithm 1; normalised, Sadiev et al., arXiv
      2511.14501.
    """
    validation.check_scheme('ef21', scheme, axis_name, key)
    metrics_lib.check(metrics)
    if not (momentum is None or callable(momentum)):
        checks.unit_interval_or_array('ef21', 'momentum', momentum)
    owner = 'ef21' if momentum is None else 'ef21 with momentum'
    made_for = validation.made_for(owner, scheme, axis_name)

    def new_memory(params: PyTree) -> PyTree:
        return axes.new_local(leaves.zeros_in_memory(params), axis_name)

    def init(params: PyTree) -> EF21State:
        return EF21State(
            exchange=leaves.init(scheme, params, key, memory=True),
            momentum=None if momentum is None else new_memory(params),
            estimate=new_memory(params),
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
        gradient = leaves.cast_like(updates, estimate)
        average = None
        if momentum is not None:
            average = axes.unwrap_local(state.momentum, axis_name)
            gradient = average = _averaged(average, gradient, momentum, state.exchange.count)
            average = axes.wrap_local(average, axis_name)
        target = optax.tree.sub(gradient, estimate)
        change, sent, _, exchange = leaves.exchange(
            scheme, target, state.exchange, axis_name, memory=True
        )
        mean = optax.tree.add(state.mean, change)
        measured = metrics_lib.measure(metrics, state.metrics, target, sent, change, axis_name)
        estimate = axes.wrap_local(optax.tree.add(estimate, sent), axis_name)
        state = EF21State(exchange, average, estimate, mean, measured, made_for)
        return leaves.cast_like(mean, updates), state

    return optax.GradientTransformation(init, update)


def _averaged(average: PyTree, gradient: PyTree, momentum: Any, count: Array) -> PyTree:
    """Returns (1 - eta) v + eta g; in the first step, g."""
    eta = momentum(count) if callable(momentum) else momentum
    eta = jnp.where(count == 0, 1, jnp.asarray(eta, jnp.float32))

    def one(v: Array, g: Array) -> Array:
        return jnp.where(eta == 1, g, v + eta.astype(v.dtype) * (g - v))

    return jax.tree.map(one, average, gradient)
