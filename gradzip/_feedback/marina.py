"""An exchange of unbiased messages about the change of each gradient between two points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import lax

from gradzip import (
    _axes as axes,
    _checks as checks,
    _collectives as collectives,
    _leaves as leaves,
    _validation as validation,
)
from gradzip._base import Array, AxisName, KeyLike, PyTree, Scheme, State, memory_like
from gradzip._leaves import ExchangeState


class MarinaState(NamedTuple):
    """The state of `marina`, the same on every worker."""

    exchange: ExchangeState
    estimate: PyTree  # of the mean gradient at the last point
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def marina(
    scheme: Scheme,
    axis_name: AxisName | None = None,
    *,
    probability: float | None = None,
    key: KeyLike,
) -> optax.GradientTransformationExtraArgs:
    """Adds to an estimate the compressed change of the gradient; now and then, sends all of it.

        u = mean_w g_w                   in the first step, and then with the given probability
        u = u + mean_w Q(g_w - g'_w)     otherwise

    where g_w is the gradient at this step's parameters and g'_w the gradient of the same batch at
    those of the step before. Pass it as `tx.update(grads, state, params, previous_grads=...)`;
    `marina_grads` computes both. One coin decides for all workers. The noise vanishes as the
    parameters come to rest. `gradzip.theory.marina` gives a step size.

    The two branches send different amounts, of which one is taken at run time. `step_bytes` and
    `wire_bytes` count the larger, the full gradient. The mean over many steps is
    `p * payload_bytes(Identity(), params) + (1 - p) * payload_bytes(scheme, params)`.

    A bare `RandK` or `Bernoulli` stands for `Sum`, whose workers share their randomness. The
    theorem divides the variance by the number of workers only if they draw independently, as under
    `Gather(RandK(0.1))`.

    Args:
      scheme: an unbiased Compressor, or `Gather` or `Sum` of one, or a function from a leaf (shape
        and dtype) to one of these.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `jax.shard_map`.
      probability: of sending the full gradient, in (0, 1]. The default is 1 / (1 + omega), with the
        largest omega of a leaf.
      key: for the coin and for random schemes: an int or a typed key, the same on all workers.

    Returns:
      A transformation with the extra argument `previous_grads`. Updates keep their shapes and
      dtypes.

    Raises:
      TypeError: an argument of another kind; a leaf that is not a real float; at init, a scheme
        that is biased.
      ValueError: probability outside (0, 1]; no key; at trace time, no previous_grads, an axis that
        is not mapped, or gradients that are the same on every worker, differ between workers where
        there is no axis, or are of another tree or shape than params.

    Example:
      >>> import jax, jax.numpy as jnp, optax, gradzip as gz
      >>> tx = gz.marina(gz.RandK(0.5), key=0)
      >>> params = previous = jnp.array([1.0, 2.0])
      >>> state = tx.init(params)
      >>> for _ in range(3):
      ...   _, g, g_before = gz.marina_grads(lambda w: jnp.sum(w**2), params, previous)
      ...   updates, state = tx.update(g, state, params, previous_grads=g_before)
      ...   previous, params = params, params - 0.1 * updates
      >>> params.shape
      (2,)

    Reference: Gorbunov, Burlachenko, Li, Richtarik, arXiv 2102.07845, algorithm 1.
    """
    validation.check_scheme('marina', scheme, axis_name, key)
    if key is None:
        raise ValueError('marina throws a coin in every step: pass key=, an int or a typed key.')
    if probability is not None:
        checks.unit_interval('marina', 'probability', probability)
    made_for = validation.made_for('marina', scheme, axis_name)

    def chance(tree: PyTree) -> float:
        """Returns the probability of sending the full gradient."""
        likes = map(memory_like, jax.tree.leaves(tree))
        omegas = [leaves.omega_of('marina', scheme, like) for like in likes]
        return 1 / (1 + max(omegas, default=0.0)) if probability is None else probability

    def init(params: PyTree) -> MarinaState:
        exchange = leaves.init(scheme, params, key, memory=False)
        chance(params)  # refuses biased schemes
        return MarinaState(exchange, leaves.zeros_in_memory(params), made_for)

    def update(
        updates: PyTree,
        state: State,
        params: PyTree | None = None,
        *,
        previous_grads: PyTree | None = None,
        **extra: Any,
    ) -> tuple[PyTree, MarinaState]:
        del params, extra
        validation.check_state(state, MarinaState, made_for)
        _check_previous(previous_grads)
        for gradients in (updates, previous_grads):
            validation.check_updates(gradients, state.estimate)
            axes.check_local(gradients, axis_name, memory=state.estimate)
        new, old = (leaves.cast_like(g, state.estimate) for g in (updates, previous_grads))

        def full() -> PyTree:
            return collectives.mean(new, axis_name)

        def change() -> PyTree:
            difference = optax.tree.sub(new, old)
            message = leaves.exchange(
                scheme, difference, state.exchange, axis_name, memory=False
            ).mean
            return optax.tree.add(state.estimate, message)

        estimate = lax.cond(_coin(state.exchange, chance(updates)), full, change)
        count = leaves.next_count(state.exchange.count)
        state = MarinaState(state.exchange._replace(count=count), estimate, made_for)
        return leaves.cast_like(estimate, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def marina_grads(
    loss: Callable, params: PyTree, previous: PyTree, *args: Any, axis_name: AxisName | None = None
) -> tuple[Array, PyTree, PyTree]:
    """Returns the loss and its gradients at two points on one batch, as `marina` needs them.

    Args:
      loss: a function of (params, *args) that returns a scalar.
      params: tree of arrays, this step's.
      previous: the params of the step before; in the first step, params.
      args: the batch and whatever else the loss takes, the same at both points.
      axis_name: the axis of workers, over which params are localized (`localize`), or None.

    Returns:
      The loss at params, the gradient at params, and the gradient at previous.

    Raises:
      ValueError: no such axis is mapped here.
      TypeError: axis_name is not an axis name.

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> gz.marina_grads(lambda w: w**2, jnp.float32(3), jnp.float32(4))[1:]
      (Array(6., dtype=float32), Array(8., dtype=float32))
    """
    if axis_name is not None:
        params, previous = axes.localize((params, previous), axis_name)
    value, grads = jax.value_and_grad(loss)(params, *args)
    return value, grads, jax.grad(loss)(previous, *args)


def _coin(state: ExchangeState, chance: float) -> Array:
    """Whether this step sends the full gradient: bool[], the same on every worker."""
    drawn = jax.random.bernoulli(jax.random.fold_in(leaves.step_key(state), leaves.BESIDE), chance)
    return drawn | (state.count == 0)


def _check_previous(previous: PyTree | None) -> None:
    if previous is None:
        raise ValueError(
            'marina needs the gradient of the same batch at the parameters of the step before: '
            'tx.update(grads, state, params, previous_grads=...). gradzip.marina_grads computes '
            'both gradients.'
        )
