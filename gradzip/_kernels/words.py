"""Codes of a few bits in words of 32 bits."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.sums import sums

WORD_BITS = 32


def words_for(size: int, bits: int) -> int:
    """How many words hold `size` codes of `bits` bits."""
    return -(-size // WORD_BITS) * bits if _in_planes(bits) else -(-size * bits // WORD_BITS)


def pack(codes: Array, bits: int) -> Array:
    """Unsigned codes below 2**bits, flat, to words: u32[words_for(size, bits)].

    If the width divides 32, consecutive codes share a word, the first in the lowest bits. Codes of
    another width (3, 5, 12) are written as bit planes: bit b of 32 consecutive codes is one word,
    so that no bit is wasted.

    Example:
      >>> import jax.numpy as jnp
      >>> pack(jnp.array([1, 2, 3], jnp.uint32), 4)
      Array([801], dtype=uint32)
    """
    codes = codes.astype(jnp.uint32)
    per_word = WORD_BITS if _in_planes(bits) else WORD_BITS // bits
    groups = jnp.pad(codes, (0, -codes.size % per_word)).reshape(-1, per_word)
    if _in_planes(bits):
        planes = [
            ((groups >> jnp.uint32(b)) & jnp.uint32(1)) << _iota(32)[None] for b in range(bits)
        ]
        return jnp.stack(sums(*planes), axis=1).ravel()
    return sums(groups << (_iota(per_word) * jnp.uint32(bits))[None])[0]


def unpack(words: Array, bits: int, size: int) -> Array:
    """The first `size` codes in words made by `pack`: u32[size]."""
    if _in_planes(bits):
        planes = words.reshape(-1, bits)
        ones = [((planes[:, b, None] >> _iota(32)[None]) & jnp.uint32(1)) << b for b in range(bits)]
        return functools.reduce(jnp.bitwise_or, ones).ravel()[:size]
    shifts = _iota(WORD_BITS // bits) * jnp.uint32(bits)
    mask = jnp.uint32((1 << bits) - 1)
    return ((words[:, None] >> shifts[None]) & mask).ravel()[:size]


def pack_masks(*masks: Array) -> list[Array]:
    """Flat masks of one size, a multiple of 32, as words, the first entry in the lowest bit."""
    rows = [mask.reshape(-1, WORD_BITS).astype(jnp.uint32) for mask in masks]
    return sums(*(bits << _iota(WORD_BITS)[None] for bits in rows))


def _in_planes(bits: int) -> bool:
    return WORD_BITS % bits != 0


def _iota(size: int) -> Array:
    return lax.iota(jnp.uint32, size)
