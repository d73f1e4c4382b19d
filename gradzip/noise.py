"""Random bits at the speed of memory, from a key and a counter.

Drawing ten million uniforms with JAX's own generator, threefry, costs as much as tens of passes over
memory, and its long chains of rounds dominate the time to compile a tree of many leaves. Stochastic
rounding needs less: numbers that are uniform, and independent across entries, steps, leaves and
workers. Here entry i of the stream of a key is a hash of i,

    h(i) = m(m(i ^ s) ^ t)

with m a mixer of 32 bits in which every bit of the input flips every bit of the output with
probability close to 1/2, and s, t two words of the key. Keys themselves are still derived by
`fold_in`, so all that is drawn can be drawn again. It is no cipher: whoever sees many outputs can find
the key.

Reference: the mixer is lowbias32 of Chris Wellons' hash prospector (nullprogram.com/blog/2018/07/31);
counters in place of a state are those of Salmon et al., SC 2011.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

DIGITS = {'bfloat16': 8, 'float16': 11, 'float32': 24, 'float64': 32}


def bits(key: Array, shape: tuple[int, ...], start: int = 0) -> Array:
    """Uniform 32-bit words: entries start, start + 1, ... of the key's stream, row by row.

    Entry i depends on the key and on i alone, so parts can be drawn one by one. Within a stream of
    2**32 entries no word comes twice; then the stream begins again.

    Args:
      key: one typed key.
      shape: of the result.
      start: where in the stream it begins.

    Returns:
      u32[*shape].

    Example:
      >>> import jax
      >>> bool((bits(jax.random.key(0), (6,))[4:] == bits(jax.random.key(0), (2,), start=4)).all())
      True
    """
    first, second = _seeds(key)
    index = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) + jnp.uint32(start & 0xFFFFFFFF)
    return _mix(_mix(index ^ first) ^ second)


def uniform(key: Array, shape: tuple[int, ...], dtype: Any, start: int = 0) -> Array:
    """Uniform multiples of 2**-d in [0, 1): d is 8, 11, 24, 32 for bf16, f16, f32, f64.

    So `uniform < p` has the probability p rounded up to such a multiple: p itself at 0 and 1.

    Args:
      key: one typed key.
      shape: of the result.
      dtype: of the result, a real floating-point type.
      start: where in the key's stream it begins.

    Returns:
      f[*shape].
    """
    digits = DIGITS[jnp.dtype(dtype).name]
    words = bits(key, shape, start) >> jnp.uint32(32 - digits)
    if digits < 32:  # below 2**31 the conversion of signed integers is the same, and faster
        words = words.astype(jnp.int32)
    return words.astype(dtype) * jnp.asarray(2.0**-digits, dtype)


def _seeds(key: Array) -> tuple[Array, Array]:
    """Two words of a key. The last word enters behind a mixer as it is; those before are mixed:
    where only they differ, one stream would else be the other in a nearby order.
    """
    *others, second = jax.random.key_data(key).reshape(-1)
    first = jnp.uint32(0x9E3779B9)
    for word in others:
        first = _mix(first ^ word)
    return first, second


def _mix(x: Array) -> Array:
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
