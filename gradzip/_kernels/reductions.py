"""Reductions over blocks of consecutive entries: largest magnitude, norm and inner products.

The CPU forms reduce 32 entries at a time and then what is left of each block. XLA vectorises a
reduction over a minor axis of 32, but not one over long rows.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._blocks import in_rows, per_entry, reciprocal
from gradzip._kernels.pieces import in_pieces
from gradzip._kernels.platform import choose
from gradzip._kernels.sums import in_one_pass
from gradzip._kernels.words import WORD_BITS

Combine = Callable[[Array, Array], Array]


def largest(flat: Array, block: int) -> Array:
    """The largest magnitude of every block: f[blocks].

    It is infinite if the block holds NaN or a magnitude above finfo.max / 4. So a finite result has
    a reciprocal that is not denormal.
    """
    return choose(flat, cpu=_largest_on_cpu, default=_largest_plain, block=block)


def norm(flat: Array, block: int) -> Array:
    """The Euclidean norm of every block, safe from overflow: f[blocks]."""
    unit = largest(flat, block)
    energy = choose(flat, reciprocal(unit), cpu=_energy_on_cpu, default=_energy_plain, block=block)
    return unit * jnp.sqrt(energy)


def inner_products(x: Array, y: Array, block: int) -> tuple[Array, Array]:
    """<x, y> and <y, y> over every block: f[blocks] each."""
    inner, energy = choose(
        x, y, cpu=_inner_products_on_cpu, default=_inner_products_plain, block=block
    )
    return inner, energy


def _magnitude(x: Array) -> Array:
    """|x|, and infinity for NaN and for what is above finfo.max / 4, 8.5e37 for float32."""
    infinity = jnp.asarray(jnp.inf, x.dtype)
    return jnp.where(jnp.abs(x) < jnp.finfo(x.dtype).max / 4, jnp.abs(x), infinity)


def _largest_plain(flat: Array, block: int) -> Array:
    return jnp.max(_magnitude(in_rows(flat, block)), axis=1, initial=0)


def _largest_on_cpu(flat: Array, block: int) -> Array:
    return _reduce(lambda piece, _: _magnitude(piece), _larger, flat, block)


def _energy_plain(flat: Array, factor: Array, block: int) -> Array:
    """Sums of squares of the entries, each times the factor of its block."""
    return jnp.sum(jnp.square(in_rows(flat, block) * factor[:, None]), axis=1)


def _energy_on_cpu(flat: Array, factor: Array, block: int) -> Array:
    def square(piece: Array, start: int) -> Array:
        return jnp.square(piece * per_entry(factor, block, piece.size, start))

    return _reduce(square, lax.add, flat, block)


def _inner_products_plain(x: Array, y: Array, block: int) -> list[Array]:
    x, y = in_rows(x, block), in_rows(y, block)
    return [jnp.sum(x * y, axis=1), jnp.sum(y * y, axis=1)]


def _inner_products_on_cpu(x: Array, y: Array, block: int) -> list[Array]:
    width = _width(x.size, block)

    def of_rows(x: Array, y: Array, start: int) -> list[Array]:
        del start
        x, y = x.reshape(-1, width), y.reshape(-1, width)
        return in_one_pass(x * y, y * y)

    partial = in_pieces(of_rows, (x, y), block)
    if block >= x.size:
        return [jnp.sum(part)[None][: x.size] for part in partial]
    both = in_one_pass(*(part.reshape(-1, block // width) for part in partial))
    return [part[: -(-x.size // block)] for part in both]


def _reduce(of: Callable[[Array, int], Array], combine: Combine, flat: Array, block: int) -> Array:
    """The reduction of what `of` computes of every block's entries; padding counts as zeros."""
    zero = jnp.zeros([], flat.dtype)
    width = _width(flat.size, block)

    def of_rows(piece: Array, start: int) -> Array:
        rows = of(piece, start).reshape(-1, width)
        if combine is lax.add and width % 2 == 0:
            # XLA:CPU hands the sum of one array to a library that takes four times as long as its
            # own loop over the halves of the rows.
            left, right = in_one_pass(rows[:, : width // 2], rows[:, width // 2 :])
            return left + right
        return lax.reduce(rows, zero, combine, (1,))

    partial = in_pieces(of_rows, flat, block)
    if block >= flat.size:
        # Without the barrier XLA merges the two reductions into one over all entries, and stores
        # what `of` computes.
        partial = lax.optimization_barrier(partial)
        return lax.reduce(partial, zero, combine, (0,)).reshape(1)[: flat.size]
    blocks = lax.reduce(partial.reshape(-1, block // width), zero, combine, (1,))
    return blocks[: -(-flat.size // block)]


def _width(size: int, block: int) -> int:
    """How many entries are reduced at first."""
    return WORD_BITS if block % WORD_BITS == 0 or block >= size else block


def _larger(a: Array, b: Array) -> Array:
    return jnp.where(a > b, a, b)  # two instructions; `maximum` lets NaN pass, and is slow
