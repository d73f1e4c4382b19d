"""Stochastic rounding to powers of two."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from gradzip import _blocks as blocks, _noise as noise
from gradzip._base import Array, Key, Like
from gradzip._compressors.quantizer import Quantizer
from gradzip._kernels.codes import pack_codes
from gradzip._kernels.fused import Flat
from gradzip._kernels.rounding import PowersOfTwo
from gradzip._kernels.words import unpack

LOW_BITS = 8  # of a code, which are packed apart from the others
OMEGA = 1 / 8


class Powers(NamedTuple):
    """The sign and exponent bits of every entry, as in IEEE 754, packed, and one scale.

    The sign bit alone, which would be a negative zero, stands for NaN.
    """

    low: Array  # u32[words], the eight lower bits of every code
    high: Array  # u32[words], the other one, the sign; four for float64
    scale: Array  # f[], a factor of all entries; 1 unless a memory asked for another


@dataclasses.dataclass(frozen=True)
class Natural(Quantizer):
    """Rounds every magnitude at random to one of the two powers of two next to it.

    v = (1 + m) 2^e becomes 2^(e+1) with probability m, and 2^e otherwise. This adds a random number
    below one to the mantissa m, and then drops the mantissa.

    Payload: one code of 9 bits (12 for float64) for each entry, and one scale; 9 n / 8 + 4 bytes
      for n float32 entries.

    Under a memory, the scale is 1 / (1 + omega) = 8/9. The least-squares scale is hardly better
    here, and it would need two more readings of the leaf.

    Guarantee: unbiased with omega = 1/8 for every leaf. Denormal entries count as zero, zeros lose
      their sign, an entry above 2**127 may become infinite, and infinity and NaN stay themselves.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> natural, key = gz.Natural(), jax.random.key(0)
      >>> x = jnp.array([3.0, -0.3, 4.0, 0.0])
      >>> natural.decode(natural.encode(x, key), x, key)
      Array([ 4.  , -0.25,  4.  ,  0.  ], dtype=float32)

    Reference: Horvath et al., arXiv 1905.10988, definition 1 and theorem 1.
    """

    random: ClassVar[bool] = True
    code_bits: ClassVar[int] = 9

    def _encode(self, x: Array, key: Key) -> Powers:
        flat = blocks.wide(x)
        layout = PowersOfTwo(flat.dtype)
        high_bits = layout.bits - LOW_BITS

        def low(piece: Array, start: int) -> Array:
            return layout.code(piece, noise.bits(key, piece.shape, start)) & jnp.uint32(255)

        def high(piece: Array, start: int) -> Array:
            # A sign does not depend on what is drawn; the upper bits of an exponent do.
            zeros = jnp.zeros(piece.shape, jnp.uint32)
            draws = zeros if high_bits == 1 else noise.bits(key, piece.shape, start)
            return layout.code(piece, draws) >> LOW_BITS

        words = pack_codes(low, flat, LOW_BITS), pack_codes(high, flat, high_bits)
        return Powers(*words, scale=jnp.ones([], flat.dtype))

    def _decode(self, payload: Powers, like: Like, key: Key) -> Array:
        del key
        layout = PowersOfTwo(payload.scale.dtype)
        low = unpack(payload.low, LOW_BITS, like.size)
        high = unpack(payload.high, layout.bits - LOW_BITS, like.size)
        powers = layout.value(low | (high << LOW_BITS))
        return (powers * payload.scale).astype(like.dtype).reshape(like.shape)

    def _sweep(self, flat: Flat, key: Key, *, fit: bool, lost: bool) -> tuple[Powers, Any]:
        from gradzip._kernels.mosaic import encoders  # only programs for TPU need Pallas

        factor = 1 / (1 + OMEGA) if fit else 1.0
        out = encoders.powers(flat, jnp.stack(noise.seeds(key)), factor=factor, rest=lost)
        low, high = out.words
        return Powers(low, high, jnp.full([], factor, jnp.float32)), out.rest if lost else ()

    def _mean(self, payloads: Powers, shape: tuple[int, ...], keys: Key) -> Array:
        from gradzip._kernels.mosaic import decoders  # only programs for TPU need Pallas

        del keys
        return decoders.mean(
            [payloads.low, payloads.high],
            [payloads.scale],
            shape,
            bits=(LOW_BITS, 1),
            block=None,
            value=decoders.powers,
        )

    def omega(self, like: Like) -> float:
        del like
        return OMEGA

    def scaled(self, payload: Powers, factor: Array | float) -> Powers:
        return blocks.rescaled(payload, factor)

    def least_squares_rescaled(self, x: Array, payload: Powers, key: Key) -> Powers:
        del x, key
        return self.scaled(payload, 1 / (1 + OMEGA))
