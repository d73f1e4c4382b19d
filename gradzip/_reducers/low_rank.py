"""What the reducers that send low-rank factors have in common."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from gradzip import _checks as checks
from gradzip._base import Array, Like, widest

FIRST_BASIS = 0  # any constant: the first Q must be the same on every worker, and full rank


def check(owner: str, rank: int, min_rate: float) -> None:
    """Raises unless rank is an integer and min_rate a number, both at least 1."""
    checks.integer(owner, 'rank', rank, 1)
    if not checks.real(owner, 'min_rate', min_rate) >= 1:  # NaN fails too
        raise ValueError(
            f'{owner}(min_rate=...) must be at least 1; got {min_rate!r}. Below 1 the factors '
            'would be larger than the leaf.'
        )


def pays(like: Like | Array, rank: int, min_rate: float) -> bool:
    """Returns whether both factors of a leaf have `min_rate` times fewer entries than it has."""
    if like.ndim < 2:
        return False
    rows, columns = matrix_shape(like)
    return 0 < min_rate * rank * (rows + columns) <= rows * columns


def matrix_shape(like: Like | Array) -> tuple[int, int]:
    """Returns the rows and columns of the split of the axes for which their sum is least."""
    splits = range(1, like.ndim)
    shapes = [(math.prod(like.shape[:k]), math.prod(like.shape[k:])) for k in splits]
    return min(shapes, key=sum)


def matrix(x: Array) -> Array:
    """Returns x as a matrix in at least float32, because QR does not exist in 16 bits."""
    return x.reshape(matrix_shape(x)).astype(widest(jnp.float32, x.dtype))


def gaussian(like: Like, rank: int, number: Array | int) -> Array:
    """Returns the first basis of a leaf, f[columns, rank]; the same on every worker."""
    shape = (matrix_shape(like)[1], rank)
    return jax.random.normal(jax.random.key(number), shape, like.dtype)


def orthonormal(p: Array) -> Array:
    """Returns orthonormal columns whose span contains that of p's columns: f[..., rows, rank].

    Householder reflections find them for every finite matrix. Columns are first scaled to a largest
    magnitude of 1, which does not change Q, because squares of huge entries would overflow and
    those of tiny entries vanish.
    """
    largest = jnp.max(jnp.abs(p), axis=-2, keepdims=True)
    return jnp.linalg.qr(p / jnp.where(largest == 0, 1, largest))[0]


def next_basis(new: Array, old: Array) -> Array:
    """Returns the new columns where they are finite and not zero, else the old ones."""
    size = jnp.sum(jnp.abs(new), axis=0)
    return jnp.where((size > 0) & jnp.isfinite(size), new.astype(old.dtype), old)
