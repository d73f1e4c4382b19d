"""A leaf in blocks of consecutive entries: a few numbers a block, a code an entry.

Quantizers share this. Two rules keep them near the speed of memory on a CPU, where the shapes
decide which loops XLA makes: reductions run over a minor axis of 32 entries, and an array of any
size is cut into its whole part and a small padded rest, rather than padded as a whole. All arrays
here are flat.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array
Combine = Callable[[Array, Array], Array]

WORD_BITS = 32
MATERIALIZE_FROM = 1 << 17  # entries, below which a copy costs less than a scatter to compile
SMALL = 1 << 16  # up to here padding the whole costs less than a second piece costs to compile


def block_of(size: int, block: int | None) -> int:
    """The length of a block in a leaf of some size; None means one block."""
    return max(1, size if block is None else min(block, size))


def wide(x: Array) -> Array:
    """All entries in row-major order, in at least float32: f[n]."""
    return x.ravel().astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


def materialize_in_place(x: Array) -> Array:
    """x, written as an array of its own shape before anything else is done with it.

    On CPU a reshape is fused into the sum that it follows. The sum then has another shape than the
    donated array that it should replace, and the result is copied there: a third of the time of
    TopK's memory step on a matrix. XLA looks through a barrier, but not through a scatter, which is
    in place; this one writes nothing.
    """
    if not x.ndim or x.size <= MATERIALIZE_FROM:
        return x
    outside = jnp.array([x.shape[0], x.shape[0] + 1])
    indices = (outside, *(0,) * (x.ndim - 1))

    def untouched(x: Array) -> Array:
        return x.at[indices].set(0, mode='drop', unique_indices=True)

    return lax.platform_dependent(x, cpu=untouched, default=lambda x: x)


def rescaled(payload: Any, factor: Array | float) -> Any:
    """The payload with `factor` times its field `scale`."""
    return payload._replace(scale=payload.scale * jnp.asarray(factor, payload.scale.dtype))


def in_pieces(encode: Callable[..., Any], flats: Array | tuple[Array, ...], block: int) -> Any:
    """encode(*pieces, start) of the whole part and of the rest, padded with zeros, joined.

    Args:
      encode: of pieces, whose size is a multiple of 32 and of the block, to a tree of arrays with
        as many entries for each block or word.
      flats: arrays of as many entries.
      block: entries that belong together; one that holds them all need not be kept together.
    """
    flats = flats if isinstance(flats, tuple) else (flats,)
    size = flats[0].size
    multiple = WORD_BITS if block >= size else math.lcm(block, WORD_BITS)
    whole = size // multiple * multiple if size > SMALL or size % multiple == 0 else 0
    parts = [encode(*(flat[:whole] for flat in flats), 0)] if whole or not size else []
    if whole < size:
        padding = 0, (whole - size) % multiple
        parts.append(encode(*(jnp.pad(flat[whole:], padding) for flat in flats), whole))
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *parts)


def per_entry(numbers: Array, block: int, size: int, start: int = 0) -> Array:
    """The number of the block of each entry from `start` on, last one repeated: f[size]."""
    if numbers.size == 1:
        return jnp.broadcast_to(numbers, (size,))
    first, count = start // block, -(-size // block)
    numbers = numbers[first : first + count]
    numbers = jnp.pad(numbers, (0, count - numbers.size))  # of blocks that are padding
    return jnp.broadcast_to(numbers[:, None], (count, block)).ravel()[:size]


def largest(flat: Array, block: int) -> Array:
    """The largest magnitude of every block, infinite where there is NaN or one above finfo.max / 4.

    So what is finite here has a reciprocal that is not denormal.
    """
    huge = jnp.finfo(flat.dtype).max / 4  # 8.5e37 for float32
    infinity = jnp.asarray(jnp.inf, flat.dtype)

    def magnitude(piece: Array, start: int) -> Array:
        del start
        # Each `where` is one instruction or two; lax.max, which lets NaN pass, is slow.
        return jnp.where(jnp.abs(piece) < huge, jnp.abs(piece), infinity)

    return _reduce(magnitude, _larger, flat, block)


def totals(per_word: Array, size: int, block: int) -> Array:
    """Sums over blocks of numbers that each are of 32 entries: f[blocks]."""
    if block >= size:
        return jnp.sum(per_word)[None][:size]
    return jnp.sum(per_word.reshape(-1, block // WORD_BITS), axis=1)[: -(-size // block)]


def norm(flat: Array, block: int) -> Array:
    """The Euclidean norm of every block, safe from overflow: f[blocks]."""
    unit = largest(flat, block)
    scale = reciprocal(unit)

    def square(piece: Array, start: int) -> Array:
        return jnp.square(piece * per_entry(scale, block, piece.size, start))

    return unit * jnp.sqrt(_reduce(square, lax.add, flat, block))


def inner_products(x: Array, y: Array, block: int) -> tuple[Array, Array]:
    """<x, y> and <y, y> over every block, in one pass: f[blocks] each."""
    zero = jnp.zeros([], x.dtype)
    rows = _rows(x.size, block)

    def of_rows(x: Array, y: Array, start: int) -> list[Array]:
        del start
        x, y = x.reshape(-1, rows), y.reshape(-1, rows)
        return list(lax.reduce((x * y, y * y), (zero, zero), add_each, (1,)))

    partial = in_pieces(of_rows, (x, y), block)
    if block >= x.size:
        return jnp.sum(partial[0])[None], jnp.sum(partial[1])[None]
    both = tuple(a.reshape(-1, block // rows) for a in partial)
    inner, energy = lax.reduce(both, (zero, zero), add_each, (1,))
    count = -(-x.size // block)
    return inner[:count], energy[:count]


def reciprocal(scale: Array) -> Array:
    """1 / scale, and 0 for 0.

    XLA stores a quotient an entry, which it holds for too expensive to compute twice, but fuses a
    product.
    """
    return jnp.where(scale > 0, 1 / jnp.where(scale > 0, scale, 1), 0)


def _reduce(of: Callable[[Array, int], Array], combine: Combine, flat: Array, block: int) -> Array:
    """The reduction of what `of` makes of every block's entries; padding counts as zeros."""
    zero = jnp.zeros([], flat.dtype)
    rows = _rows(flat.size, block)

    def of_rows(piece: Array, start: int) -> Array:
        return lax.reduce(of(piece, start).reshape(-1, rows), zero, combine, (1,))

    partial = in_pieces(of_rows, flat, block)
    if block >= flat.size:
        # Two reductions would be made one again, over all entries, of stored magnitudes.
        partial = lax.optimization_barrier(partial)
        return lax.reduce(partial, zero, combine, (0,)).reshape(1)[: flat.size]
    blocks = lax.reduce(partial.reshape(-1, block // rows), zero, combine, (1,))
    return blocks[: -(-flat.size // block)]


def _rows(size: int, block: int) -> int:
    """How many entries are reduced at first."""
    return WORD_BITS if block % WORD_BITS == 0 or block >= size else block


def add_each(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    """For `lax.reduce` of several operands, which is one pass over memory; several are as many."""
    return tuple(p + q for p, q in zip(a, b, strict=True))


def _larger(a: Array, b: Array) -> Array:
    return jnp.where(a > b, a, b)
