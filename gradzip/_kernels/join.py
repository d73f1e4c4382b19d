"""Concatenation of flat arrays that are computed in the same program."""

from __future__ import annotations

import jax.numpy as jnp

from gradzip._base import Array
from gradzip._kernels.platform import choose


def join(*parts: Array) -> Array:
    """The flat arrays one after the other."""
    if len(parts) == 1:
        return parts[0]
    return choose(*parts, cpu=as_rows, default=plain)


def plain(*parts: Array) -> Array:
    """Concatenates flat arrays."""
    return jnp.concatenate(parts)


def as_rows(*parts: Array) -> Array:
    """Concatenates them as matrices of one row.

    On CPU, XLA fuses what computes a part into a concatenation of flat arrays. That takes 15 ns a
    word, 32 ms for 4-bit codes of 16.8 million entries. Rows are computed first and then copied.
    """
    return jnp.concatenate([part[None] for part in parts], axis=1)[0]
