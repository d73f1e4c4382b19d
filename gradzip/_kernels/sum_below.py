"""The sum and the number of the magnitudes that are at most a threshold."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.pieces import in_pieces
from gradzip._kernels.platform import choose
from gradzip._kernels.sums import in_one_pass
from gradzip._kernels.words import WORD_BITS


def sum_below(flat: Array, factor: Array, t: Array) -> tuple[Array, Array]:
    """Sum and number of the entries with factor * |x| <= t, of factor * |x|: f[], i32[]."""
    total, count = choose(flat, factor, t, cpu=_on_cpu, default=_plain)
    return total, count


def _plain(flat: Array, factor: Array, t: Array) -> tuple[Array, Array]:
    magnitude = factor * jnp.abs(flat)
    below = magnitude <= t
    return jnp.sum(jnp.where(below, magnitude, 0)), jnp.sum(below, dtype=jnp.int32)


def _on_cpu(flat: Array, factor: Array, t: Array) -> tuple[Array, Array]:
    """Sums of 32 entries at a time, both in one pass."""

    def of_rows(piece: Array, start: int) -> list[Array]:
        magnitude = factor * jnp.abs(piece)
        no_padding = start + lax.iota(jnp.int32, piece.size) < flat.size
        below = (magnitude <= t) & no_padding
        columns = jnp.where(below, magnitude, 0), below.astype(jnp.int32)
        return in_one_pass(*(column.reshape(-1, WORD_BITS) for column in columns))

    total, count = in_pieces(of_rows, flat, max(flat.size, 1))
    return jnp.sum(total), jnp.sum(count, dtype=jnp.int32)
