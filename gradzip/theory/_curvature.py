"""The largest and smallest curvature of losses on a flat vector, through Hessian-vector products.

Up to DENSE entries the Hessian is formed and its eigenvalues are exact. Above, Lanczos' method with
full orthogonalisation finds both ends of the spectrum of F: the largest value from below, and the
smallest from above. For each worker, power iteration finds the largest absolute eigenvalue from
below; it needs the memory of one vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DENSE = 256  # entries
Loss = Callable[[jax.Array, Any], jax.Array]  # of a flat vector and one worker's batch


def mean_loss(loss: Loss, x: jax.Array, batches: Any) -> jax.Array:
    """Returns F(x), one worker after the other."""
    return jnp.mean(jax.lax.map(lambda batch: loss(x, batch), batches))


def ends_of_mean(loss: Loss, steps: int) -> Callable[[jax.Array, jax.Array, Any], Any]:
    """Returns a compiled function of a point, a direction and the batches: F's curvature's ends."""

    def ends(x: jax.Array, start: jax.Array, batches: Any) -> tuple[jax.Array, jax.Array]:
        def F(x: jax.Array) -> jax.Array:
            return mean_loss(loss, x, batches)

        if x.size <= DENSE:
            spectrum = jnp.linalg.eigvalsh(jax.hessian(F)(x))
            return spectrum[0], spectrum[-1]
        return _lanczos(lambda v: product(F, x, v), start, min(steps, x.size))

    return jax.jit(ends)


def largest_of_each(loss: Loss, steps: int) -> Callable[[jax.Array, jax.Array, Any], Any]:
    """Returns a compiled function of a point, a direction and the batches: every worker's L_i."""

    def one(x: jax.Array, start: jax.Array, batch: Any) -> jax.Array:
        def f(x: jax.Array) -> jax.Array:
            return loss(x, batch)

        if x.size <= DENSE:
            return jnp.max(jnp.abs(jnp.linalg.eigvalsh(jax.hessian(f)(x))))

        def again(v: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            u = product(f, x, v)
            size = jnp.linalg.norm(u)
            return u / jnp.where(size > 0, size, 1), size

        return jnp.max(jax.lax.scan(again, start / jnp.linalg.norm(start), length=steps)[1])

    return jax.jit(lambda x, v, batches: jax.lax.map(lambda batch: one(x, v, batch), batches))


def product(f: Callable[[jax.Array], jax.Array], x: jax.Array, v: jax.Array) -> jax.Array:
    """Returns the Hessian of f at x times v."""
    return jax.jvp(jax.grad(f), (x,), (v,))[1]


def _lanczos(apply: Callable, start: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """Returns the smallest and the largest Ritz value."""

    def step(carry: tuple, i: jax.Array) -> tuple[tuple, tuple]:
        basis, v = carry
        basis = basis.at[i].set(v)
        u = apply(v)
        diagonal = u @ v
        for _ in range(2):  # twice is enough for full orthogonality
            u = u - basis.T @ (basis @ u)
        size = jnp.linalg.norm(u)
        return (basis, u / jnp.where(size > 0, size, 1)), (diagonal, size)

    first = jnp.zeros((steps, start.size), start.dtype), start / jnp.linalg.norm(start)
    _, (diagonal, beside) = jax.lax.scan(step, first, jnp.arange(steps))
    # where an invariant subspace ends early, what follows is zero, and repeats the first diagonal
    ended = jnp.cumsum(beside <= 1e-6 * jnp.max(jnp.abs(diagonal) + beside)) > 0
    beside = jnp.where(ended, 0, beside)
    lost = jnp.concatenate([jnp.zeros(1, bool), ended[:-1]])
    diagonal = jnp.where(lost, diagonal[0], diagonal)
    T = jnp.diag(diagonal) + jnp.diag(beside[:-1], 1) + jnp.diag(beside[:-1], -1)
    spectrum = jnp.linalg.eigvalsh(T)
    return spectrum[0], spectrum[-1]


def random_direction(size: int, dtype: Any, seed: int) -> jax.Array:
    """Returns a direction that has a part in every eigenvector."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=size), dtype)
