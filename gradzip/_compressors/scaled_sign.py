"""One bit an entry."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks
from gradzip._base import Array, Compressor, Key, Like
from gradzip._blocks import WORD_BITS
from gradzip._packing import unpack


class Signs(NamedTuple):
    """A bit is set where the entry's sign bit is; an entry is +scale or -scale."""

    bits: Array  # u32[words]
    scale: Array  # f[]


@dataclasses.dataclass(frozen=True)
class ScaledSign(Compressor):
    """C(v) = (|v|_1 / n) sign(v), zeros by their sign bit: sign(0) = 1, sign(-0) = -1.

    Payload: one bit an entry and one scale; n / 8 + 4 bytes for n float32 entries.

    Guarantee: contractive with delta = |v|_1^2 / (n |v|_2^2), which is 1 / n at worst (one non-zero
      entry) and 2 / pi for a Gaussian leaf. Biased: use it under `error_feedback` or `ef21`. A leaf
      that holds NaN or infinity decodes to NaN.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.ScaledSign().encode(jnp.array([3.0, -1.0, 2.0]), jax.random.key(0))
      Signs(bits=Array([2], dtype=uint32), scale=Array(2., dtype=float32))

    Reference: Karimireddy et al., arXiv 1901.09847, algorithm 1 and lemma 8.
    """

    def encode(self, x: Array, key: Key) -> Signs:
        del key
        flat = blocks.wide(x)
        words, partial = blocks.in_pieces(_signs_and_means, flat, max(x.size, 1))
        return Signs(words, _mean_of(partial, x.size))

    def decode(self, payload: Signs, like: Like, key: Key) -> Array:
        del key
        negative = unpack(payload.bits, 1, like.size) == 1
        entries = jnp.where(negative, -payload.scale, payload.scale)
        return entries.astype(like.dtype).reshape(like.shape)

    def delta(self, like: Like) -> float:
        return 1 / max(like.size, 1)

    def scaled(self, payload: Signs, factor: Array | float) -> Signs:
        return blocks.rescaled(payload, factor)


def _signs_and_means(piece: Array, start: int) -> tuple[Array, Array]:
    """A word of sign bits and a sum of |x| / 32 for every 32 entries, in one pass."""
    del start
    rows = piece.reshape(-1, WORD_BITS)
    bits = jnp.signbit(rows).astype(jnp.uint32) << lax.iota(jnp.uint32, WORD_BITS)
    zeros = jnp.uint32(0), jnp.zeros([], piece.dtype)
    words, means = lax.reduce((bits, jnp.abs(rows) / WORD_BITS), zeros, blocks.add_each, (1,))
    return words, means


def _mean_of(means: Array, size: int) -> Array:
    """The mean of |x| over all entries: means of means, which no sum of huge entries overflows."""
    entries = WORD_BITS  # of which a number here is the mean, counting padding
    while means.size > 1:
        rows = jnp.pad(means, (0, -means.size % WORD_BITS)).reshape(-1, WORD_BITS)
        means, entries = jnp.sum(rows / WORD_BITS, axis=1), entries * WORD_BITS
    return jnp.sum(means) * (entries / max(size, 1))
