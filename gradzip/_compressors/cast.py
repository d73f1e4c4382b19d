"""Every entry as a float of 16 or 8 bits."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _blocks as blocks
from gradzip._base import Array, Compressor, Key, Like

NARROW = ('bfloat16', 'float16', 'float8_e4m3fn', 'float8_e5m2')


class Narrow(NamedTuple):
    """Narrow floats as the integers of their bits, which no compiler widens; times one scale."""

    words: Array  # u16[n] or u8[n]
    scale: Array  # f[], a power of two


@dataclasses.dataclass(frozen=True)
class Cast(Compressor):
    """Rounds every entry to the nearest narrow float, after the leaf was scaled by a power of two.

    The scale brings the largest magnitude just below the top of the narrow type's range. So nothing
    overflows, and what underflows is small beside the largest entry.

    Args:
      dtype: bfloat16, float16, float8_e4m3fn or float8_e5m2, as a name or a dtype.

    Payload: two bytes or one an entry, and one scale; 2 n + 4 or n + 4 bytes for n entries.

    Guarantee: contractive. With m bits of mantissa, smallest normal t and the largest magnitude at
      least M / 2 after scaling, delta = 1 - 4^-(m + 1) - n (2 t / M)^2: 1 - 2^-16, 1 - 2^-22 for
      bfloat16, float16 and 1 - 2^-6 for float8_e5m2; 1 - 2^-8 - n 2^-26 for float8_e4m3fn, and if
      that is not positive the share of the largest entry, below 1 / n. Biased: use it under
      `error_feedback` or `ef21`. A leaf with NaN, infinity or magnitudes above finfo.max / 4 is not
      scaled, and those entries decode to nothing finite; below 1e-36 the scale ends.

    Raises:
      ValueError: another dtype.

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
        object.__setattr__(self, 'dtype', name)  # equal, and prints alike, however it was given

    @property
    def _info(self) -> Any:
        return jnp.finfo(self.dtype)

    def encode(self, x: Array, key: Key) -> Narrow:
        del key
        flat, info = blocks.wide(x), self._info
        largest = jnp.sum(blocks.largest(flat, max(x.size, 1)))
        exponent = jnp.clip(_top(info) - jnp.frexp(largest)[1], -126, 126)
        exponent = jnp.where(jnp.isfinite(largest), exponent, 0)
        entries = flat * jnp.ldexp(jnp.ones([], flat.dtype), exponent)
        if info.bits == 16:
            # XLA may take x -> narrow -> wide for x, and what was lost for nothing
            # (openxla/xla#41605). Rounding by itself it respects; the conversion is then exact.
            entries = lax.reduce_precision(entries, info.nexp, info.nmant)
        words = lax.bitcast_convert_type(entries.astype(self.dtype), f'uint{info.bits}')
        return Narrow(words, jnp.ldexp(jnp.ones([], flat.dtype), -exponent))

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
    """The largest e with 2**e in the type's range: magnitudes below 2**e round to at most that."""
    return math.frexp(float(info.max))[1] - 1
