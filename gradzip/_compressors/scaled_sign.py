"""One sign bit for each entry, and their mean magnitude."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from gradzip import _blocks as blocks
from gradzip._base import Array, Key, Like
from gradzip._compressors.quantizer import Quantizer
from gradzip._kernels.fused import Flat
from gradzip._kernels.signs import signs_and_mean
from gradzip._kernels.words import unpack


class Signs(NamedTuple):
    """A bit is set where the sign bit of the entry is; an entry is +scale or -scale."""

    bits: Array  # u32[words]
    scale: Array  # f[]


@dataclasses.dataclass(frozen=True)
class ScaledSign(Quantizer):
    """C(v) = (|v|_1 / n) sign(v), where the sign of a zero is its sign bit.

    Payload: one bit for each entry, and one scale; n / 8 + 4 bytes for n float32 entries.

    Guarantee: contractive with delta = |v|_1^2 / (n |v|_2^2), which is 1 / n at worst (one non-zero
      entry) and 2 / pi for a Gaussian leaf. It is biased: use it under `error_feedback` or `ef21`.
      No entry of a leaf is finite after decoding if one of them was not.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> gz.ScaledSign().encode(jnp.array([3.0, -1.0, 2.0]), jax.random.key(0))
      Signs(bits=Array([2], dtype=uint32), scale=Array(2., dtype=float32))

    Reference: Karimireddy et al., arXiv 1901.09847, algorithm 1 and lemma 8.
    """

    code_bits: ClassVar[int] = 1

    def _encode(self, x: Array, key: Key) -> Signs:
        del key
        bits, mean = signs_and_mean(blocks.wide(x))
        return Signs(bits, scale=mean)

    def _decode(self, payload: Signs, like: Like, key: Key) -> Array:
        del key
        negative = unpack(payload.bits, 1, like.size) == 1
        entries = jnp.where(negative, -payload.scale, payload.scale)
        return entries.astype(like.dtype).reshape(like.shape)

    def _sweep(self, flat: Flat, key: Key, *, fit: bool, lost: bool) -> tuple[Signs, Any]:
        from gradzip._kernels.mosaic import encoders  # only programs for TPU need Pallas

        del key, fit  # the mean is the least-squares scale
        bits, mean = encoders.signs(flat)
        total = flat.total
        rest = total - jnp.where(jnp.signbit(total), -mean, mean) if lost else ()
        return Signs(bits, scale=mean), rest

    def _mean(self, payloads: Signs, shape: tuple[int, ...], keys: Key) -> Array:
        from gradzip._kernels.mosaic import decoders  # only programs for TPU need Pallas

        del keys
        words, scales = [payloads.bits], [payloads.scale]
        return decoders.mean(words, scales, shape, bits=(1,), block=None, value=decoders.signed)

    def delta(self, like: Like) -> float:
        return 1 / max(like.size, 1)

    def scaled(self, payload: Signs, factor: Array | float) -> Signs:
        return blocks.rescaled(payload, factor)
