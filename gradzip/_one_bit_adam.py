"""The two parts of 1-bit Adam: the workers send their momentum, and the variance is frozen.

Adam divides the momentum by the root of a mean of squares. A compressed gradient has the wrong
squares: under ScaledSign they are the same for all entries. 1-bit Adam measures them while it sends
everything, and then keeps them. What is sent afterwards is the momentum, which changes slowly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradzip import _checks as checks, _leaves as leaves, _validation as validation
from gradzip._base import Array, PyTree, State


class SharedMomentumState(NamedTuple):
    """`momentum` is the same on every worker; `inner` is as the inner transformation has it."""

    momentum: PyTree  # the last update
    inner: PyTree


def shared_momentum(
    inner: optax.GradientTransformation, decay: float | Array
) -> optax.GradientTransformationExtraArgs:
    """Exchanges momentum in place of gradients, and continues from what the exchange returned.

        m = inner(decay m + (1 - decay) g_w)

    All workers continue from the same m. With an exact exchange this is `optax.ema(decay,
    debias=False)` of the mean gradient. 1-bit Adam is this chain, with `scale_by_frozen_adam`:

        warmup = 1000  # steps in which everything is sent
        scheme = Schedule((Identity(), TwoShot(ScaledSign())), (warmup,))
        chain(shared_momentum(error_feedback(scheme, 'data'), 0.9),
              scale_by_frozen_adam(warmup, b1=0.9),
              scale_by_learning_rate(1e-3))

    `TwoShot` compresses both ways, as the paper's servers do, and `error_feedback` has the memories
    of the workers and of the servers in one.

    Args:
      inner: an exchange, such as `error_feedback`.
      decay: of the momentum, in (0, 1], or a scalar array.

    Returns:
      A transformation. Updates keep their shapes and dtypes.

    Raises:
      TypeError: inner is not a transformation, or decay is not a number.
      ValueError: decay outside (0, 1].

    Example:
      >>> import jax.numpy as jnp, gradzip as gz
      >>> tx = gz.shared_momentum(gz.error_feedback(gz.TopK(0.5)), 0.5)
      >>> state = tx.init(jnp.zeros(2))
      >>> for _ in range(2):
      ...   update, state = tx.update(jnp.array([2.0, 4.0]), state)
      >>> update  # 0.5 * [0, 2] + 0.5 * [2, 4] + the memory [1, 0] is [2, 3]
      Array([0., 3.], dtype=float32)

    Reference: Tang et al., arXiv 2102.02888, algorithm 1.
    """
    validation.check_transformation('shared_momentum', 'inner', inner)
    checks.unit_interval_or_array('shared_momentum', 'decay', decay)
    inner = optax.with_extra_args_support(inner)

    def init(params: PyTree) -> SharedMomentumState:
        validation.check_real(params)
        return SharedMomentumState(leaves.zeros_in_memory(params), inner.init(params))

    def update(
        updates: PyTree, state: State, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, SharedMomentumState]:
        validation.check_updates(updates, state.momentum)

        def one(m: Array, g: Array) -> Array:
            rate = jnp.asarray(decay, m.dtype)
            return rate * m + (1 - rate) * g.astype(m.dtype)

        own = jax.tree.map(one, state.momentum, updates)
        momentum, inner_state = inner.update(own, state.inner, params, **extra)
        momentum = leaves.cast_like(momentum, state.momentum)
        return leaves.cast_like(momentum, updates), SharedMomentumState(momentum, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


class FrozenAdamState(NamedTuple):
    """The state of `scale_by_frozen_adam`, the same on every worker."""

    count: Array  # i32[], the number of steps taken
    momentum: PyTree  # the last one that was received
    squares: PyTree  # a mean of squared gradients, frozen after the warm-up


def scale_by_frozen_adam(
    warmup: int, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Scales a momentum as Adam does, by squares that are measured in a warm-up and then frozen.

    It receives the momentum of `shared_momentum` with decay b1. In the warm-up nothing may be lost,
    so that the gradient can be recovered from two momenta, and the result is that of `optax.adam`,
    with its corrections of both biases. After it, the divisor stays as it is.

    An entry whose gradient was exactly zero in the whole warm-up, such as an embedding that did not
    occur, has no scale: its updates are zero from then on. (One-bit schemes cannot send a zero, and
    divided by eps what they send would be huge.) Choose a warm-up in which every entry is used.

    Args:
      warmup: the number of steps in which the squares are measured, at least 1.
      b1: the decay of the momentum that is received, in [0, 1).
      b2: the decay of the squares, in [0, 1).
      eps: added to the root of the squares, above 0.

    Returns:
      A transformation.

    Raises:
      ValueError: warmup below 1, or another number out of range.
      TypeError: an argument is not a number.

    Example:
      >>> import jax.numpy as jnp, optax, gradzip as gz
      >>> momentum = gz.shared_momentum(gz.compress(gz.Identity()), 0.9)
      >>> tx = optax.chain(momentum, gz.scale_by_frozen_adam(100))
      >>> tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)))[0].round(3)
      Array([ 1., -1.], dtype=float32)

    Reference: Tang et al., arXiv 2102.02888, algorithm 1, with Adam's corrections of the biases.
    """
    checks.integer('scale_by_frozen_adam', 'warmup', warmup, 1)
    for name, value in (('b1', b1), ('b2', b2)):
        checks.below_one('scale_by_frozen_adam', name, value)
    if not checks.real('scale_by_frozen_adam', 'eps', eps) > 0:
        raise ValueError(f'scale_by_frozen_adam(eps=...) must be above 0; got {eps!r}.')

    def init(params: PyTree) -> FrozenAdamState:
        zeros = leaves.zeros_in_memory
        return FrozenAdamState(jnp.zeros([], jnp.int32), zeros(params), zeros(params))

    def update(
        updates: PyTree, state: State, params: PyTree | None = None
    ) -> tuple[PyTree, FrozenAdamState]:
        del params
        count = leaves.next_count(state.count)
        momentum = leaves.cast_like(updates, state.momentum)

        def squared(s: Array, m: Array, last: Array) -> Array:
            gradient = (m - b1 * last) / (1 - b1)
            return jnp.where(count <= warmup, b2 * s + (1 - b2) * gradient**2, s)

        squares = jax.tree.map(squared, state.squares, momentum, state.momentum)

        def scaled(m: Array, s: Array) -> Array:
            steps = count.astype(m.dtype)
            unbiased = m / (1 - b1**steps)
            root = jnp.sqrt(s / (1 - b2 ** jnp.minimum(steps, warmup)))
            return jnp.where(s > 0, unbiased / (root + eps), 0)

        new = leaves.cast_like(jax.tree.map(scaled, momentum, squares), updates)
        return new, FrozenAdamState(count, momentum, squares)

    return optax.GradientTransformation(init, update)
