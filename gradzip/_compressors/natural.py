"""Stochastic rounding to powers of two."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks, _noise as noise
from gradzip._base import Array, Compressor, Key, Like
from gradzip._kernels.codes import pack_codes
from gradzip._kernels.words import unpack


class Powers(NamedTuple):
    """The sign and exponent bits of every entry, as in IEEE 754, packed, and one scale.

    The sign bit alone, which would be a negative zero, stands for NaN.
    """

    codes: Array  # u32[words]
    scale: Array  # f[], a factor of all entries; 1 unless a memory asked for another


@dataclasses.dataclass(frozen=True)
class Natural(Compressor):
    """Rounds every magnitude at random to one of the two powers of two next to it.

    v = (1 + m) 2^e becomes 2^(e+1) with probability m, and 2^e otherwise. This adds a random number
    below one to the mantissa m, and then drops the mantissa.

    Payload: one code of 9 bits (12 for float64) for each entry, and one scale; 9 n / 8 + 4 bytes
      for n float32 entries.

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

    def encode(self, x: Array, key: Key) -> Powers:
        flat = blocks.wide(x)
        layout = _Layout(flat.dtype)

        def round_at_random(piece: Array, start: int) -> Array:
            draws = noise.bits(key, piece.shape, start) >> jnp.uint32(layout.spare)
            return layout.code(piece, draws)

        codes = pack_codes(round_at_random, flat, layout.bits)
        return Powers(codes, jnp.ones([], flat.dtype))

    def decode(self, payload: Powers, like: Like, key: Key) -> Array:
        del key
        layout = _Layout(payload.scale.dtype)
        powers = layout.value(unpack(payload.codes, layout.bits, like.size))
        return (powers * payload.scale).astype(like.dtype).reshape(like.shape)

    def omega(self, like: Like) -> float:
        del like
        return 1 / 8

    def scaled(self, payload: Powers, factor: Array | float) -> Powers:
        return blocks.rescaled(payload, factor)


class _Layout:
    """The places of the bits of a float: sign and exponent are the code, the mantissa is below.

    Infinity has a code like every power of two. NaN would need a bit of the mantissa, so it has the
    code of a negative zero, and both zeros have the code 0.
    """

    def __init__(self, dtype: Any) -> None:
        info = jnp.finfo(dtype)
        self.word = jnp.dtype(f'uint{info.bits}')
        self.dtype = info.dtype
        self.mantissa = info.nmant
        self.bits = info.bits - info.nmant
        self.nan = 1 << self.bits - 1  # the sign bit of a code
        self.spare = max(0, 32 - info.nmant)  # random bits that a word has more than the mantissa
        self.missing = max(0, info.nmant - 32)  # low bits of the mantissa that get no random bit

    def code(self, x: Array, draws: Array) -> Array:
        """u32 codes of entries, given a random word for each."""
        word = lax.bitcast_convert_type(x, self.word)
        magnitude = word & ((self.nan << self.mantissa) - 1)
        infinity = (self.nan - 1) << self.mantissa
        draws = draws.astype(self.word) << self.missing
        # A carry out of the mantissa gives the next power. Infinity must not be changed.
        code = jnp.where(magnitude < infinity, word + draws, word) >> self.mantissa
        code = jnp.where(magnitude < 1 << self.mantissa, 0, code)
        return jnp.where(magnitude > infinity, self.nan, code).astype(jnp.uint32)

    def value(self, codes: Array) -> Array:
        """The powers that codes stand for."""
        powers = lax.bitcast_convert_type(codes.astype(self.word) << self.mantissa, self.dtype)
        return jnp.where(codes == self.nan, jnp.nan, powers)
