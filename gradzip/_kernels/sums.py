"""Sums of several arrays of one shape over their last axis."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.platform import choose


def sums(*arrays: Array) -> list[Array]:
    """The sum of each array over its last axis, in the array's dtype."""
    if len(arrays) == 1:
        return _plain(*arrays)
    return choose(*arrays, cpu=in_one_pass, default=_plain)


def _plain(*arrays: Array) -> list[Array]:
    return [jnp.sum(array, axis=-1, dtype=array.dtype) for array in arrays]


def in_one_pass(*arrays: Array) -> list[Array]:
    """The same as one reduction of several operands.

    On CPU, XLA makes one loop of it, which reads memory once. It makes one loop for each of several
    reductions, even if they read the same array.
    """
    zeros = tuple(jnp.zeros([], array.dtype) for array in arrays)
    return list(lax.reduce(arrays, zeros, _add_each, (arrays[0].ndim - 1,)))


def _add_each(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(p + q for p, q in zip(a, b, strict=True))
