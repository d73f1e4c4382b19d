"""An exchange of unbiased messages about the difference to a shift that each worker learns."""

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
from gradzip._base import Array, AxisName, KeyLike, PyTree, Scheme, State, memory_like
from gradzip._leaves import ExchangeState


class DianaState(NamedTuple):
    """The state of `diana`. `shift` is each worker's own, the rest the same on every worker."""

    exchange: ExchangeState
    shift: PyTree  # what this worker's gradient is expected to be; PerWorker with an axis
    mean: PyTree  # the mean of the shifts of all workers
    metrics: dict[str, PyTree]
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def diana(
    scheme: Scheme,
    axis_name: AxisName | None = None,
    *,
    alpha: float | Array | None = None,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformation:
    """Sends an unbiased message about the difference of each gradient to the worker's shift.

        m_w = Q(g_w - h_w);   u = h + mean_w m_w;   h_w = h_w + alpha m_w

    where h is the mean of the shifts before the step, which every worker keeps too. The shifts
    start at zero and approach the workers' gradients at the solution, so that the noise of the
    compression vanishes, also where the workers' losses have different minimisers. Updates are
    unbiased estimates of the mean gradient at every step. `gradzip.theory.diana` gives a step size.

    A bare `RandK` or `Bernoulli` stands for `Sum`, whose workers share their randomness. The
    theorem divides the variance by the number of workers only if they draw independently, as under
    `Gather(RandK(0.1))`.

    Args:
      scheme: an unbiased Compressor, or `Gather` or `Sum` of one, or a function from a leaf (shape
        and dtype) to one of these.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `data_parallel` or `jax.shard_map`.
      alpha: the step of the shifts, in (0, 1], or a scalar array. The default for each leaf is
        1 / (1 + omega), the largest for which the theorem holds.
      key: for random schemes: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`; here the target
        is the difference g_w - h_w, and `mean` is the mean of the m_w.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float; at init, a scheme
        that is biased.
      ValueError: alpha outside (0, 1]; a random scheme without a key; at trace time, an axis that
        is not mapped, gradients that are the same on every worker, differ between workers where
        there is no axis, or are of another tree or shape than params.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.diana(gz.Identity(), alpha=0.5)
      >>> update, state = tx.update(jnp.array([1.0, 2.0]), tx.init(jnp.zeros(2)))
      >>> update, state.shift
      (Array([1., 2.], dtype=float32), Array([0.5, 1. ], dtype=float32))

    Reference: Mishchenko, Gorbunov, Takac, Richtarik, arXiv 1901.09269, algorithm 1, without its
      momentum; for any unbiased compressor, Horvath et al., arXiv 1904.05115.
    """
    validation.check_scheme('diana', scheme, axis_name, key)
    if alpha is not None:
        checks.unit_interval_or_array('diana', 'alpha', alpha)
    metrics_lib.check(metrics)
    made_for = validation.made_for('diana', scheme, axis_name)

    def rates(tree: PyTree) -> PyTree:
        """Returns alpha for every leaf."""
        omegas = jax.tree.map(lambda x: leaves.omega_of('diana', scheme, memory_like(x)), tree)
        return jax.tree.map(lambda omega: 1 / (1 + omega) if alpha is None else alpha, omegas)

    def init(params: PyTree) -> DianaState:
        exchange = leaves.init(scheme, params, key, memory=False)
        rates(params)  # refuses biased schemes
        return DianaState(
            exchange=exchange,
            shift=axes.new_local(leaves.zeros_in_memory(params), axis_name),
            mean=leaves.zeros_in_memory(params),
            metrics=metrics_lib.init(metrics, params),
            made_for=made_for,
        )

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, DianaState]:
        del params
        validation.check_state(state, DianaState, made_for)
        updates, shift = validation.received(updates, state.shift, axis_name)
        target = optax.tree.sub(leaves.cast_like(updates, shift), shift)
        message, sent, _, exchange = leaves.exchange(
            scheme, target, state.exchange, axis_name, memory=False
        )
        estimate = optax.tree.add(state.mean, message)
        alphas = rates(updates)
        shift = jax.tree.map(_moved, shift, sent, alphas)
        mean = jax.tree.map(_moved, state.mean, message, alphas)
        measured = metrics_lib.measure(metrics, state.metrics, target, sent, message, axis_name)
        shift = axes.wrap_local(shift, axis_name)
        return leaves.cast_like(estimate, updates), DianaState(
            exchange, shift, mean, measured, made_for
        )

    return optax.GradientTransformation(init, update)


def _moved(x: Array, step: Array, rate: float | Array) -> Array:
    return x + jnp.asarray(rate, x.dtype) * step
