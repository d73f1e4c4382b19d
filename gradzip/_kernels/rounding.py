"""Rounding at random, in one place for all forms, so that all platforms write the same codes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array


def integers(ratio: Array, threshold: Array | float, levels: int) -> Array:
    """Rounds to one of the two integers next to it, at most `levels` in magnitude: f[...].

    Args:
      ratio: what is rounded.
      threshold: numbers in [0, 1). A magnitude m is rounded up if m - floor(m) exceeds it, so that
        integers stay as they are.
      levels: the largest integer.
    """
    magnitude = jnp.abs(ratio)
    low = jnp.floor(magnitude)
    up = threshold < magnitude - low
    integer = jnp.minimum(low + up.astype(low.dtype), levels)
    return jnp.where(ratio < 0, -integer, integer)


def codes_of(integer: Array, levels: int, bits: int) -> Array:
    """Integers plus levels, as u32[...].

    A number that is not finite becomes an arbitrary integer, which must not change the bits of its
    neighbours.
    """
    return (integer.astype(jnp.int32) + levels).astype(jnp.uint32) & jnp.uint32((1 << bits) - 1)


def bounded(x: Array) -> Array:
    """|x|, and infinity for NaN and for what is above finfo.max / 4, 8.5e37 for float32.

    So a finite maximum of such numbers has a reciprocal that is not denormal.
    """
    infinity = jnp.asarray(jnp.inf, x.dtype)
    return jnp.where(jnp.abs(x) < jnp.finfo(x.dtype).max / 4, jnp.abs(x), infinity)


class PowersOfTwo:
    """Codes of the powers of two in a float type: its sign and exponent bits, without the mantissa.

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
        """u32 codes of entries, given a uniform word for each."""
        word = lax.bitcast_convert_type(x, self.word)
        magnitude = word & ((self.nan << self.mantissa) - 1)
        infinity = (self.nan - 1) << self.mantissa
        draws = (draws >> jnp.uint32(self.spare)).astype(self.word) << self.missing
        # A carry out of the mantissa gives the next power. Infinity must not be changed.
        code = jnp.where(magnitude < infinity, word + draws, word) >> self.mantissa
        code = jnp.where(magnitude < 1 << self.mantissa, 0, code)
        return jnp.where(magnitude > infinity, self.nan, code).astype(jnp.uint32)

    def value(self, codes: Array) -> Array:
        """The powers that codes stand for."""
        powers = lax.bitcast_convert_type(codes.astype(self.word) << self.mantissa, self.dtype)
        return jnp.where(codes == self.nan, jnp.nan, powers)
