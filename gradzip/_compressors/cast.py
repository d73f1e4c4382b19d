"""Rounding to a float of 16 or 8 bits."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks
from gradzip._base import Array, Compressor, Key, Like
from gradzip._kernels.fused import fused
from gradzip._kernels.reductions import largest as largest_of

NARROW = ('bfloat16', 'float16', 'float8_e4m3fn', 'float8_e5m2')


class Narrow(NamedTuple):
    """Narrow floats as integers of the same bits, which no compiler widens, and one scale."""

    words: Array  # u16 or u8, of the shape of the leaf
    scale: Array  # f[], a power of two


@dataclasses.dataclass(frozen=True)
class Cast(Compressor):
    """Scales the leaf by a power of two and rounds every entry to the nearest narrow float.

    The scale brings the largest magnitude just below the top of the range of the narrow type. So no
    entry overflows, and the entries that underflow are small beside the largest one.

    Args:
      dtype: bfloat16, float16, float8_e4m3fn or float8_e5m2, as a name or a dtype.

    Payload: two bytes or one byte for each entry, and one scale; 2 n + 4 or n + 4 bytes for n
      entries.

    Guarantee: contractive. With m bits of mantissa, smallest normal number t and a largest
      magnitude of at least M / 2 after scaling, delta = 1 - 4^-(m + 1) - n (2 t / M)^2. That is
      1 - 2^-16 for bfloat16, 1 - 2^-22 for float16, 1 - 2^-6 for float8_e5m2 and 1 - 2^-8 - n 2^-26
      for float8_e4m3fn. Where it is not positive, delta is the share of the largest entry, below
      1 / n. It is biased: use it under `error_feedback` or `ef21`. A leaf with NaN, infinity or
      magnitudes above finfo.max / 4 is not scaled, and those entries are not finite after decoding.
      The scale does not grow further for leaves whose largest magnitude is below 1e-36.

    Raises:
      ValueError: dtype is not one of the four.

    Example:
      >>> import jax, jax.numpy as jnp, gradzip as gz
      >>> cast, key, x = gz.Cast('float8_e5m2'), jax.random.key(0), jnp.array([1.0, 0.3])
      >>> cast.decode(cast.encode(x, key), x, key)
      Array([1.    , 0.3125], dtype=float32)

    Reference: Micikevicius et al., arXiv 2209.05433, for the types of 8 bits.
    """

    dtype: Any

    def __post_init__(self) -> None:
        try:
            name = jnp.dtype(self.dtype).name
        except TypeError:
            name = None
        if name not in NARROW:
            raise ValueError(f'Cast(dtype=...) must be one of {NARROW}; got {self.dtype!r}.')
        object.__setattr__(self, 'dtype', name)  # a name and a dtype make equal objects

    @property
    def _info(self) -> Any:
        return jnp.finfo(self.dtype)

    def encode(self, x: Array, key: Key) -> Narrow:
        del key
        return self._rounded(x, self._exponent(x))

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Narrow, Array]:
        if memory is None:
            return super().message(x, key)
        exponent = self._exponent(x + memory)
        # The barrier has XLA add again instead of storing the sum, which takes a leaf of memory.
        first, second, exponent = lax.optimization_barrier((x, memory, exponent))
        total = first + second
        payload = self._rounded(total, exponent)
        return payload, self.remainder(total, payload, key)

    def adds(self, like: Like) -> bool:
        return fused(like.size, like.dtype)

    def _exponent(self, x: Array) -> Array:
        """That of the power of two by which entries are multiplied before they are rounded."""
        largest = jnp.sum(largest_of(blocks.wide(x), max(x.size, 1)))
        exponent = jnp.clip(_top(self._info) - jnp.frexp(largest)[1], -126, 126)
        return jnp.where(jnp.isfinite(largest), exponent, 0)

    def _rounded(self, x: Array, exponent: Array) -> Narrow:
        wide, info = blocks.wide(x).reshape(x.shape), self._info
        entries = wide * jnp.ldexp(jnp.ones([], wide.dtype), exponent)
        scale = jnp.ldexp(jnp.ones([], wide.dtype), -exponent)
        words = lax.bitcast_convert_type(entries.astype(self.dtype), f'uint{info.bits}')
        return Narrow(words | _hidden_zero(scale).astype(words.dtype), scale)

    def decode(self, payload: Narrow, like: Like, key: Key) -> Array:
        del key
        narrow = lax.bitcast_convert_type(payload.words, self.dtype)
        entries = narrow.astype(payload.scale.dtype) * payload.scale
        return entries.astype(like.dtype).reshape(like.shape)

    def delta(self, like: Like) -> float:
        info, size = self._info, max(like.size, 1)
        small = float(info.smallest_normal) / 2.0 ** (_top(info) - 1)
        lost = 4.0 ** -(info.nmant + 1) + size * small**2
        return max(1 - lost, (1 - 4.0 ** -(info.nmant + 1)) / size)

    def scaled(self, payload: Narrow, factor: Array | float) -> Narrow:
        return blocks.rescaled(payload, factor)


def _top(info: Any) -> int:
    """The largest e with 2**e in the range of the type: magnitudes below it round to at most it."""
    return math.frexp(float(info.max))[1] - 1


def _hidden_zero(power: Array) -> Array:
    """The lowest bit of a power of two, u32[]: a zero that XLA does not recognise.

    Without it XLA may simplify x -> narrow -> wide to x (openxla/xla#41605, and on GPU also for
    types of 8 bits). Nothing would be lost then, and the memory would stay zero. A barrier would
    also prevent that, but it would split the loop that writes both the words and the memory.
    """
    return lax.bitcast_convert_type(power.astype(jnp.float32), jnp.uint32) & jnp.uint32(1)
