"""The code of Elias and Fano for ascending positions, which needs little more than their entropy.

Of k positions below n, the lowest L = floor(log2(n / k)) bits are written as they are. The rest is
written in a bit map, where the j-th position sets bit (position >> L) + j. These bits are distinct,
and decoding takes the place of the j-th set bit, minus j. The map has k + (n >> L) bits, so that a
position costs L + 1 + n / (k 2^L) <= log2(n / k) + 2 bits. The entropy of a position is
log2(n / k) + 1.44 bits where k is small against n, and no other L costs less. Up to n = 4 k a map
of the n entries themselves is smaller still.

Encoding and decoding are a few operations on whole arrays, without a loop over bits and without
64-bit integers. All sizes follow from k and n.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.bits import select
from gradzip._kernels.words import WORD_BITS, pack, unpack


class Positions(NamedTuple):
    """Ascending positions, packed. Their number and range are not part of the payload."""

    low: Array  # u32[words], the lowest bits of every position; empty if positions are dense
    high: Array  # u32[words], one set bit for each position


def encode(indices: Array, size: int) -> Positions:
    """Packs ascending, distinct positions.

    Args:
      indices: i32[k], each in [0, size). If there are fewer than k positions, the rest of the
        array is `size`, for which no bit is set.
      size: n, below 2**31.

    Example:
      >>> import jax.numpy as jnp
      >>> decode(encode(jnp.array([3, 14, 15]), 100), 3, 100)
      Array([ 3, 14, 15], dtype=int32)
    """
    count = indices.size
    bits = _low_bits(count, size)
    # Dense positions are the bits of the map. High parts of others may be equal, and the rank j
    # makes the bits distinct.
    place = indices if bits == 0 else (indices >> bits) + lax.iota(jnp.int32, count)
    bit = (indices < size).astype(jnp.uint32) << (place & 31).astype(jnp.uint32)
    high = jnp.zeros(_high_words(count, size), jnp.uint32)
    high = high.at[place >> 5].add(
        bit, mode='drop', indices_are_sorted=True, wrap_negative_indices=False
    )
    return Positions(pack(indices & ((1 << bits) - 1), bits) if bits else high[:0], high)


def decode(positions: Positions, count: int, size: int) -> Array:
    """The positions that `encode` packed: i32[count], arbitrary after the last set bit."""
    bits = _low_bits(count, size)
    if count == 0:
        return jnp.zeros(0, jnp.int32)
    place = select(positions.high, count)
    if bits == 0:
        return place
    low = unpack(positions.low, bits, count).astype(jnp.int32)
    return ((place - lax.iota(jnp.int32, count)) << bits) | low


def _low_bits(count: int, size: int) -> int:
    """L, or 0 where a map of all entries is as small: 3 + n / 4k >= n / k up to n = 4k."""
    return 0 if size <= 4 * count or count == 0 else (size // count).bit_length() - 1


def _high_words(count: int, size: int) -> int:
    bits = _low_bits(count, size)
    places = size if bits == 0 else count + ((size - 1) >> bits)
    return -(-places // WORD_BITS) if count else 0
