"""The largest entries of every row of a matrix."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from gradzip.base import Array


def top_k(x: Array, k: int) -> Array:
    """Where the k entries of largest magnitude are in each row: i32[rows, k], ascending.

    Ties go to the lower index; NaN are larger than infinity.
    """
    _, indices = lax.top_k(jnp.abs(x), k)
    return lax.sort(indices, dimension=1)
