"""Ascending positions in nearly as few bits as there is information in them.

Elias and Fano: of k positions below n, the lowest L = floor(log2(n / k)) bits are written as they
are. The rest ascends slowly: the j-th position sets bit (position >> L) + j of a map, all of these
differ, and decoding takes the place of the j-th set bit, minus j. The map has k + (n >> L) bits, so
a position costs L + 1 + n / (k 2^L) <= log2(n / k) + 2 bits. Their entropy is log2(n / k) + 1.44
where k is small against n, and no other L costs less. Up to n = 4 k a map of the n entries
themselves is smaller still.

Both directions are a handful of operations on whole arrays: no loop over bits, no 64-bit integer,
sizes known from k and n alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._blocks import WORD_BITS
from gradzip._kernels.selection import select
from gradzip._packing import pack, unpack


class Positions(NamedTuple):
    """Ascending positions; their number and the range they are from are known elsewhere."""

    low: Array  # u32[words], the lowest bits of every position; none where positions are dense
    high: Array  # u32[words], one set bit a position


def encode(indices: Array, size: int) -> Positions:
    """Packs ascending, distinct positions.

    Args:
      indices: i32[k], each in [0, size). Where there are fewer than k, `size` at the end: no bit
        is set for those.
      size: n, below 2**31.

    Example:
      >>> import jax.numpy as jnp
      >>> decode(encode(jnp.array([3, 14, 15]), 100), 3, 100)
      Array([ 3, 14, 15], dtype=int32)
    """
    count = indices.size
    bits = _low_bits(count, size)
    # Dense positions are their own bits; the others share some, and the rank makes them distinct.
    place = indices if bits == 0 else (indices >> bits) + lax.iota(jnp.int32, count)
    bit = (indices < size).astype(jnp.uint32) << (place & 31).astype(jnp.uint32)
    high = jnp.zeros(_high_words(count, size), jnp.uint32)
    high = high.at[place >> 5].add(
        bit, mode='drop', indices_are_sorted=True, wrap_negative_indices=False
    )
    return Positions(pack(indices & ((1 << bits) - 1), bits) if bits else high[:0], high)


def decode(positions: Positions, count: int, size: int) -> Array:
    """The positions that `encode` packed: i32[count]; arbitrary after the last set bit."""
    bits = _low_bits(count, size)
    if count == 0:
        return jnp.zeros(0, jnp.int32)
    place = select(positions.high, count)
    if bits == 0:
        return place
    low = unpack(positions.low, bits, count).astype(jnp.int32)
    return ((place - lax.iota(jnp.int32, count)) << bits) | low


def _low_bits(count: int, size: int) -> int:
    """L; 0 where a plain map of all entries is as small: 3 + n / 4k >= n / k up to n = 4k."""
    return 0 if size <= 4 * count or count == 0 else (size // count).bit_length() - 1


def _high_words(count: int, size: int) -> int:
    bits = _low_bits(count, size)
    places = size if bits == 0 else count + ((size - 1) >> bits)
    return -(-places // WORD_BITS) if count else 0
