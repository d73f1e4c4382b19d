"""One bit an entry, and what the entries of each sign are on average."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks, _checks as checks
from gradzip._base import Array, Compressor, Key, Like
from gradzip._blocks import WORD_BITS
from gradzip._packing import unpack, words_for


class TwoMeans(NamedTuple):
    """A bit is set where the entry is negative; the means of the others and of those, by block."""

    bits: Array  # u32[words]
    means: Array  # f[2, blocks], the first row >= 0, the second <= 0


@dataclasses.dataclass(frozen=True)
class OneBit(Compressor):
    """Replaces every entry by the mean of its block's entries of the same sign.

    C(v) is the projection of v on the span of the two indicators, of v >= 0 and of v < 0, so no
    other two values for these bits are nearer.

    Args:
      block: entries that share their two means, a multiple of 32; None for the whole leaf. The last
        block may be shorter.

    Payload: one bit an entry and two means a block; n / 8 + 8 n / block bytes for n float32
    entries.

    Guarantee: contractive with delta >= |v|_1^2 / (b |v|_2^2) in blocks of b entries: 1 / b at
      worst (one non-zero entry), and 2 / pi for Gaussian entries, as for `ScaledSign`; more where
      the signs differ in frequency or size. Biased: use it under `error_feedback` or `ef21`. What
      is not finite makes a mean of its block not finite.

    Raises:
      ValueError: block is not positive, or not a multiple of 32.
      TypeError: block is not an integer.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> payload = gz.OneBit().encode(jnp.array([3.0, -1.0, 1.0]), jax.random.key(0))
      >>> payload.bits, payload.means.ravel()
      (Array([2], dtype=uint32), Array([ 2., -1.], dtype=float32))

    Reference: Seide et al., Interspeech 2014, section 3.
    """

    _: dataclasses.KW_ONLY
    block: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None:
            checks.integer('OneBit', 'block', self.block, 1)
            if self.block % WORD_BITS:
                raise ValueError(
                    f'OneBit(block=...) must be a multiple of {WORD_BITS}; got {self.block!r}.'
                )

    def encode(self, x: Array, key: Key) -> TwoMeans:
        del key
        flat, block = blocks.wide(x), blocks.block_of(x.size, self.block)
        words, *sums = blocks.in_pieces(_signs_and_sums, flat, block)
        negatives = lax.population_count(words).astype(flat.dtype)
        length = jnp.minimum(block, x.size - block * jnp.arange(-(-x.size // block)))
        below = blocks.totals(negatives, x.size, block)
        means = [
            blocks.totals(total, x.size, block) / jnp.maximum(count / WORD_BITS, 1 / WORD_BITS)
            for total, count in zip(sums, (length.astype(flat.dtype) - below, below), strict=True)
        ]
        return TwoMeans(words[: words_for(x.size, 1)], jnp.stack(means))

    def decode(self, payload: TwoMeans, like: Like, key: Key) -> Array:
        del key
        block = blocks.block_of(like.size, self.block)
        negative = unpack(payload.bits, 1, like.size) == 1
        high, low = (blocks.per_entry(mean, block, like.size) for mean in payload.means)
        return jnp.where(negative, low, high).astype(like.dtype).reshape(like.shape)

    def delta(self, like: Like) -> float:
        return 1 / blocks.block_of(like.size, self.block)

    def scaled(self, payload: TwoMeans, factor: Array | float) -> TwoMeans:
        return payload._replace(means=payload.means * jnp.asarray(factor, payload.means.dtype))


def _signs_and_sums(piece: Array, start: int) -> tuple[Array, Array, Array]:
    """For every 32 entries, in one pass: signs, and the sums of either sign, over 32."""
    del start
    rows = piece.reshape(-1, WORD_BITS)
    bits = (rows < 0).astype(jnp.uint32) << lax.iota(jnp.uint32, WORD_BITS)
    low = jnp.where(rows < 0, rows, 0) / WORD_BITS
    high = jnp.where(rows < 0, 0, rows) / WORD_BITS  # NaN is here
    zero = jnp.zeros([], piece.dtype)
    words, high, low = lax.reduce(
        (bits, high, low), (jnp.uint32(0), zero, zero), blocks.add_each, (1,)
    )
    return words, high, low
