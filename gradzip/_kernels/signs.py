"""Sign bits as words, and the mean magnitudes that go with them.

The CPU forms compute a word and the sums of its 32 entries in one pass over memory.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._blocks import in_rows
from gradzip._kernels.pieces import in_pieces
from gradzip._kernels.platform import choose
from gradzip._kernels.sums import in_one_pass
from gradzip._kernels.words import WORD_BITS, pack, words_for


def signs_and_mean(flat: Array) -> tuple[Array, Array]:
    """The sign bits u32[words] and the mean of |x| f[], in which no sum overflows.

    If an entry is not finite, neither is the mean.
    """
    words, mean = choose(flat, cpu=_mean_on_cpu, default=_mean_plain)
    return words, mean


def _mean_plain(flat: Array) -> tuple[Array, Array]:
    magnitude = jnp.abs(flat)
    unit = jnp.max(magnitude, initial=0)
    unit = jnp.where(unit > 0, unit, 1)
    return pack(jnp.signbit(flat), 1), unit * (jnp.sum(magnitude / unit) / max(flat.size, 1))


def _mean_on_cpu(flat: Array) -> tuple[Array, Array]:
    def of_rows(piece: Array, start: int) -> list[Array]:
        del start
        rows = piece.reshape(-1, WORD_BITS)
        bits = jnp.signbit(rows).astype(jnp.uint32) << lax.iota(jnp.uint32, WORD_BITS)[None]
        return in_one_pass(bits, jnp.abs(rows) / WORD_BITS)

    words, means = in_pieces(of_rows, flat, max(flat.size, 1))
    entries = WORD_BITS  # of which a number here is the mean, with the padding
    while means.size > 1:
        rows = jnp.pad(means, (0, -means.size % WORD_BITS)).reshape(-1, WORD_BITS)
        means, entries = jnp.sum(rows / WORD_BITS, axis=1), entries * WORD_BITS
    return words, jnp.sum(means) * (entries / max(flat.size, 1))


def signs_and_two_means(flat: Array, block: int) -> tuple[Array, Array]:
    """Bits that are set where x < 0, u32[words], and the means of the two groups: f[2, blocks].

    The first row holds the means of the entries of each block that are not below zero, NaN among
    them, and the second row those of the others. The mean of no entries is zero.

    Args:
      flat: the entries.
      block: entries that share their means, a multiple of 32 or at least the size of the array.
    """
    count = -(-flat.size // block)
    length = jnp.minimum(block, flat.size - block * jnp.arange(count)).astype(flat.dtype)
    words, below, high, low = choose(flat, cpu=_sums_on_cpu, default=_sums_plain, block=block)
    return words, means_of(below, high, low, length)


def means_of(below: Array, high: Array, low: Array, length: Array | int) -> Array:
    """The means of both groups: f[2, blocks].

    Args:
      below: how many entries of every block are below zero.
      high: the sums / 32 of the others.
      low: the sums / 32 of those below zero.
      length: how many entries a block has.
    """
    counts = [jnp.maximum(n / WORD_BITS, 1 / WORD_BITS) for n in (length - below, below)]
    return jnp.stack([high / counts[0], low / counts[1]])


def _sums_plain(flat: Array, block: int) -> list[Array]:
    """Bits, the number of entries below zero, and the sums / 32 of the others and of those."""
    rows = in_rows(flat, block)
    columns = [rows < 0, *_by_sign(rows)]
    return [pack(flat < 0, 1), *(jnp.sum(c, axis=1, dtype=flat.dtype) for c in columns)]


def _sums_on_cpu(flat: Array, block: int) -> list[Array]:
    def of_rows(piece: Array, start: int) -> list[Array]:
        del start
        rows = piece.reshape(-1, WORD_BITS)
        bits = (rows < 0).astype(jnp.uint32) << lax.iota(jnp.uint32, WORD_BITS)[None]
        return in_one_pass(bits, *_by_sign(rows))

    words, *sums = in_pieces(of_rows, flat, block)
    below = lax.population_count(words).astype(flat.dtype)
    columns = [_totals(column, flat.size, block) for column in (below, *sums)]
    return [words[: words_for(flat.size, 1)], *columns]


def _totals(per_word: Array, size: int, block: int) -> Array:
    """Sums over blocks of numbers that each stand for 32 entries: f[blocks]."""
    if block >= size:
        return jnp.sum(per_word)[None][:size]
    return jnp.sum(per_word.reshape(-1, block // WORD_BITS), axis=1)[: -(-size // block)]


def _by_sign(x: Array) -> tuple[Array, Array]:
    """x / 32 where it is not below zero, and where it is, zero elsewhere."""
    return jnp.where(x < 0, 0, x) / WORD_BITS, jnp.where(x < 0, x, 0) / WORD_BITS
