"""One sign bit for each entry, and the mean of the entries of each sign."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from gradzip import _blocks as blocks, _checks as checks
from gradzip._base import Array, Key, Like
from gradzip._compressors.quantizer import Quantizer
from gradzip._kernels.fused import Flat
from gradzip._kernels.signs import means_of, signs_and_two_means
from gradzip._kernels.words import WORD_BITS, unpack


class TwoMeans(NamedTuple):
    """A bit is set where the entry is negative, and every block has one mean for each sign."""

    bits: Array  # u32[words]
    means: Array  # f[2, blocks], the first row >= 0, the second <= 0


@dataclasses.dataclass(frozen=True)
class OneBit(Quantizer):
    """Replaces every entry by the mean of the entries of the same sign in its block.

    C(v) is the projection of v on the span of the indicators of v >= 0 and of v < 0, so no other
    two values for these bits are nearer to v.

    Args:
      block: entries that share their two means, a multiple of 32; None for the whole leaf. The last
        block may be shorter.

    Payload: one bit for each entry and two means for each block; n / 8 + 8 n / block bytes for n
      float32 entries.

    Guarantee: contractive with delta >= |v|_1^2 / (b |v|_2^2) in blocks of b entries. That is 1 / b
      at worst (one non-zero entry) and 2 / pi for Gaussian entries, as for `ScaledSign`, and more
      where the signs differ in frequency or size. It is biased: use it under `error_feedback` or
      `ef21`. If an entry is not finite, neither is the mean that stands for it.

    Raises:
      ValueError: block is not positive, or it is not a multiple of 32.
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
    code_bits: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.block is not None:
            checks.integer('OneBit', 'block', self.block, 1)
            if self.block % WORD_BITS:
                raise ValueError(
                    f'OneBit(block=...) must be a multiple of {WORD_BITS}; got {self.block!r}.'
                )

    def _encode(self, x: Array, key: Key) -> TwoMeans:
        del key
        block = blocks.block_of(x.size, self.block)
        return TwoMeans(*signs_and_two_means(blocks.wide(x), block))

    def _decode(self, payload: TwoMeans, like: Like, key: Key) -> Array:
        del key
        block = blocks.block_of(like.size, self.block)
        negative = unpack(payload.bits, 1, like.size) == 1
        high, low = (blocks.per_entry(mean, block, like.size) for mean in payload.means)
        return jnp.where(negative, low, high).astype(like.dtype).reshape(like.shape)

    def _swept(self, like: Like) -> bool:
        return blocks.block_of(like.size, self.block) == like.size and super()._swept(like)

    def _sweep(self, flat: Flat, key: Key, *, fit: bool, lost: bool) -> tuple[TwoMeans, Any]:
        from gradzip._kernels.mosaic import encoders  # only programs for TPU need Pallas

        del key, fit  # the means are the least-squares scales
        bits, below, high, low = encoders.signs_and_two_sums(flat)
        means = means_of(below, high, low, flat.size)
        total = flat.total
        rest = total - jnp.where(total < 0, means[1, 0], means[0, 0]) if lost else ()
        return TwoMeans(bits, means), rest

    def _mean(self, payloads: TwoMeans, shape: tuple[int, ...], keys: Key) -> Array:
        from gradzip._kernels.mosaic import decoders  # only programs for TPU need Pallas

        del keys
        means = [payloads.means[:, 0, 0], payloads.means[:, 1, 0]]
        words, value = [payloads.bits], decoders.one_of_two
        return decoders.mean(words, means, shape, bits=(1,), block=None, value=value)

    def delta(self, like: Like) -> float:
        return 1 / blocks.block_of(like.size, self.block)

    def scaled(self, payload: TwoMeans, factor: Array | float) -> TwoMeans:
        return payload._replace(means=payload.means * jnp.asarray(factor, payload.means.dtype))
