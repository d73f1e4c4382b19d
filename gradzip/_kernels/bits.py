"""Set bits of words: how many there are, and where the j-th one is.

The words hold a mask, the lowest bit first. The plain form is `jnp.nonzero` of the mask. It needs
an integer for every bit of the mask, where these functions need one for every word.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.words import WORD_BITS, pack_masks

MASK_MULTIPLE = WORD_BITS * WORD_BITS  # bits that are told empty by one bit of a mask of words


def select(words: Array, count: int) -> Array:
    """Positions of the first `count` set bits, ascending: i32[count].

    Args:
      words: u32[m], the lowest bit first.
      count: how many positions; those beyond the last set bit are arbitrary, but within the words.
    """
    if 2 * count < words.size and words.size % WORD_BITS == 0:
        # Most words are empty: select the words that are not, and then the bits within those.
        home = select(pack_masks(words != 0)[0], count)
        bit = select(take(words, home), count)
        return (take(home, bit >> 5) << 5) + (bit & 31)
    ones = _ones(words)
    running = lax.cumsum(ones)
    # The j-th set bit lies in the word that as many words precede as have running <= j.
    ends = (
        jnp.zeros(count, jnp.int32)
        .at[running]
        .add(1, mode='drop', indices_are_sorted=True, wrap_negative_indices=False)
    )
    home = jnp.minimum(lax.cumsum(ends), words.size - 1)
    rank = lax.iota(jnp.int32, count) - take(running - ones, home)
    return (home << 5) + _select_in_word(take(words, home), rank)


def first_bits(words: Array, count: Array) -> Array:
    """The words without all but the first `count` set bits, count >= 1."""
    last = position(words, count)
    home = lax.iota(jnp.int32, words.size)
    upto = (jnp.uint32(2) << (last & 31).astype(jnp.uint32)) - 1  # of 32 bits, 2 << 31 is 0
    part = jnp.where(home == last >> 5, words & upto, jnp.uint32(0))
    return jnp.where(home < last >> 5, words, part)


def position(words: Array, count: Array) -> Array:
    """The position of the count-th set bit, where `count` is an array: i32[]."""
    ones = _ones(words)
    running = lax.cumsum(ones)
    home = jnp.minimum(jnp.sum(running < count, dtype=jnp.int32), words.size - 1)
    rank = count - 1 - take(running - ones, home)
    return (home << 5) + _select_in_word(take(words, home), rank)


def count_ones(words: Array) -> Array:
    """How many bits are set in a multiple of 32 words: i32[]."""
    # On CPU, XLA sums integers fast over a minor axis of 32, but not over a flat array.
    rows = jnp.sum(_ones(words).reshape(-1, WORD_BITS), axis=1, dtype=jnp.int32)
    return jnp.sum(rows, dtype=jnp.int32)


def take(x: Array, indices: Array) -> Array:
    """x at indices that are known to be in bounds."""
    return x.at[indices].get(mode='promise_in_bounds', wrap_negative_indices=False)


def _ones(words: Array) -> Array:
    return lax.population_count(words).astype(jnp.int32)


def _select_in_word(word: Array, rank: Array) -> Array:
    """Position of the set bit that `rank` set bits precede, by halving."""
    position = jnp.zeros_like(rank)
    for half in (16, 8, 4, 2, 1):
        low = (word >> position.astype(jnp.uint32)) & jnp.uint32((1 << half) - 1)
        ones = _ones(low)
        higher = rank >= ones
        rank = jnp.where(higher, rank - ones, rank)
        position = jnp.where(higher, position + half, position)
    return position
