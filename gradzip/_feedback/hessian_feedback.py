"""Error feedback that corrects the memory by the Hessian (HAEC).

What a memory holds back was computed at older parameters. Let x+ = x - gamma u, where u is the mean
of the messages, and let e be the mean of the memories. The point y = x - gamma e is where the run
would be if nothing were held back, and error feedback moves it by the gradient at x. Subtracting
gamma H e turns the gradient at x into the one at y, to first order:

    grad F(x) - gamma H e  ~  grad F(x - gamma e) = grad F(y)
"""

from __future__ import annotations

from collections.abc import Callable
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
from gradzip._feedback.error_feedback import error_feedback


class HessianFeedbackState(NamedTuple):
    """The state of `hessian_feedback`."""

    feedback: PyTree  # the `ErrorFeedbackState`, with the memory
    made_for: PyTree  # a `MadeFor`: the transformation that this state belongs to


def hessian_feedback(
    scheme: Scheme,
    axis_name: AxisName | None = None,
    *,
    step_size: float | Array,
    memory_dtype: Any = None,
    key: KeyLike | None = None,
    metrics: metrics_lib.Metrics = {},
) -> optax.GradientTransformationExtraArgs:
    """Error feedback whose memory is corrected by the Hessian before it is added.

        v_w = g_w + e_w - gamma H_w e_w;   u = mean_w C(v_w);   e_w = v_w - C(v_w)

    It is for `sgd(gamma)` behind it. The points y = x - gamma mean_w e_w then descend as those of
    exact gradient descent on a quadratic F whose Hessian all H_w are, so that errors do not add up:
    a compressor with an absolute error eps, such as rounding to multiples of a number, leaves the
    run within gamma eps of the minimiser, however badly F is conditioned. The bounds of error
    feedback and of no memory, eps/mu, are larger (`gradzip.theory.haec`). With a contractive
    compressor on one worker, the memory vanishes with the gradients, and there is less to gain.

    `update` takes the Hessian of this worker's loss as one of two extra arguments:

    - `value_fn`, the worker's loss as a function of the params, as optax's line searches have it:
      H e is then exact, by a Hessian-vector product, which takes longer than a gradient.
    - `hessian_diagonal`, a tree like params: H is the diagonal matrix. `optax.contrib`'s
      `hutchinson_estimator_diag_hessian` estimates it; one estimate can serve many steps.

    Workers whose losses differ have different Hessians. The bound then depends on how far they are
    from the mean one.

    Args:
      scheme: a Compressor, a Reducer, or a function from a leaf (shape and dtype) to one.
      axis_name: the mapped axis of workers, or a tuple of axes; None for one worker. Under a plain
        `jax.jit` over several devices no axis is mapped, and JAX averages the gradients before they
        arrive here, so None saves no traffic: use `data_parallel` or `jax.shard_map`.
      step_size: gamma, above 0, the learning rate of the `sgd` behind it; or a scalar array, so
        that `optax.inject_hyperparams` can set it.
      memory_dtype: dtype of the memory, as in `error_feedback`.
      key: for random schemes and roundings: an int or a typed key, the same on all workers.
      metrics: names to functions of (target, sent, mean), as in `gradzip.metrics`.

    Returns:
      A transformation with the extra arguments `value_fn` and `hessian_diagonal`. Updates keep
      their shapes and dtypes.

    Raises:
      TypeError: as `error_feedback`; step_size is not a number; value_fn is not a function.
      ValueError: as `error_feedback`; step_size not above 0; at trace time, neither or both of
        value_fn and hessian_diagonal, value_fn without params, or a diagonal of another tree or
        shape than params.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> loss = lambda w: 2 * jnp.sum(w**2)
      >>> tx = gz.hessian_feedback(gz.TopK(0.5), step_size=0.125)
      >>> w = jnp.array([2.0, 1.0])
      >>> state = tx.init(w)
      >>> for _ in range(2):
      ...   update, state = tx.update(jax.grad(loss)(w), state, w, value_fn=loss)
      ...   w = w - 0.125 * update
      >>> w, state.feedback.error  # error feedback would send 8, and arrive at 0
      (Array([1. , 0.25], dtype=float32), Array([4., 0.], dtype=float32))

    Reference: Khirirat, Magnusson, Johansson, arXiv 1909.10327.
    """
    checks.positive_or_array('hessian_feedback', 'step_size', step_size)
    inner = error_feedback(scheme, axis_name, memory_dtype=memory_dtype, key=key, metrics=metrics)
    made_for = validation.made_for('hessian_feedback', scheme, axis_name)

    def init(params: PyTree) -> HessianFeedbackState:
        return HessianFeedbackState(inner.init(params), made_for)

    def update(
        updates: PyTree,
        state: State,
        params: PyTree | None = None,
        *,
        value_fn: Callable[[PyTree], Array] | None = None,
        hessian_diagonal: PyTree | None = None,
        **extra: Any,
    ) -> tuple[PyTree, HessianFeedbackState]:
        del extra
        validation.check_state(state, HessianFeedbackState, made_for)
        given, error = validation.received(updates, state.feedback.error, axis_name)
        product = _hessian_times(error, params, value_fn, hessian_diagonal, axis_name)
        corrected = jax.tree.map(
            lambda g, e, h: g.astype(e.dtype) - jnp.asarray(step_size, e.dtype) * h,
            given, error, product,
        )  # fmt: skip
        mean, feedback = inner.update(corrected, state.feedback, params)
        return leaves.cast_like(mean, updates), HessianFeedbackState(feedback, made_for)

    return optax.GradientTransformationExtraArgs(init, update)


def _hessian_times(
    error: PyTree,
    params: PyTree | None,
    value_fn: Callable[[PyTree], Array] | None,
    diagonal: PyTree | None,
    axis_name: AxisName | None,
) -> PyTree:
    """Returns H e in the dtype of the memory."""
    if (value_fn is None) == (diagonal is None):
        found = 'neither' if value_fn is None else 'both'
        raise ValueError(
            f'hessian_feedback needs one of value_fn and hessian_diagonal, and got {found}: call '
            'tx.update(grads, state, params, value_fn=loss), where loss is a function of the '
            "params on this worker's batch, or pass hessian_diagonal=, a tree like params. Without "
            'either, use error_feedback.'
        )
    if value_fn is None:
        validation.check_updates(diagonal, error)
        return jax.tree.map(lambda d, e: d.astype(e.dtype) * e, diagonal, error)
    if not callable(value_fn):
        raise TypeError(
            'hessian_feedback(value_fn=...) must be a function of the params that returns the '
            f'loss; got {value_fn!r}.'
        )
    if params is None:
        raise ValueError(
            'hessian_feedback takes the Hessian at the params: call tx.update(grads, state, '
            'params, value_fn=loss).'
        )
    direction = leaves.cast_like(error, params)
    if axis_name is not None:  # a memory that was made in the same step is not typed as local yet
        params, direction = axes.localize((params, direction), axis_name)
    product = jax.jvp(jax.grad(value_fn), (params,), (direction,))[1]
    return leaves.cast_like(product, error)
