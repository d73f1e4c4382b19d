"""Random bits at the speed of memory, from a key and a counter.

Drawing ten million uniforms with JAX's own generator, threefry, costs as much as tens of passes
over memory, and its long chains of rounds dominate the time to compile a tree of many leaves.
Stochastic rounding needs less than threefry offers: numbers that are uniform, and independent
across entries, steps, leaves and workers. Here entry i of the stream of a key is a hash of i,

    h(i) = m(m(i ^ s) ^ t)

where m is a mixer of 32 bits in which every bit of the input flips every bit of the output with a
probability close to 1/2, and s, t are two words of the key. Keys themselves are still derived by
`fold_in`, so that every number can be drawn again. The generator is not cryptographic: the key can
be computed from many outputs.

Reference: the mixer is lowbias32 of Chris Wellons' hash prospector
(nullprogram.com/blog/2018/07/31); counters in place of a state are from Salmon et al., SC 2011.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array

ROUNDS = 6
DIGITS = {'bfloat16': 8, 'float16': 11, 'float32': 24, 'float64': 32}


def bits(key: Array, shape: tuple[int, ...], start: int = 0) -> Array:
    """Uniform 32-bit words: entries start, start + 1, ... of the key's stream, row by row.

    Entry i depends on the key and on i alone, so that parts can be drawn separately. The stream has
    2**32 entries, no two of them equal, and then begins again.

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
    index = lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) + jnp.uint32(start & 0xFFFFFFFF)
    return bits_at(index, *seeds(key))


def bits_at(index: Array, first: Array, second: Array) -> Array:
    """The entries of a stream at some places, u32[...], given the key's `seeds`."""
    return _mix(_mix(index ^ first) ^ second)


def uniform(key: Array, shape: tuple[int, ...], dtype: Any, start: int = 0) -> Array:
    """Uniform multiples of 2**-d in [0, 1), where d is 8, 11, 24, 32 for bf16, f16, f32, f64.

    The probability of `uniform < p` is p rounded up to such a multiple, which is p at 0 and 1.

    Args:
      key: one typed key.
      shape: of the result.
      dtype: of the result, a real floating-point type.
      start: where in the key's stream it begins.

    Returns:
      f[*shape].
    """
    return uniform_from(bits(key, shape, start), dtype)


def uniform_from(words: Array, dtype: Any) -> Array:
    """What `uniform` makes of the 32-bit words of a stream: f[...]."""
    digits = DIGITS[jnp.dtype(dtype).name]
    words = words >> jnp.uint32(32 - digits)
    if digits < 32:  # the conversion of signed integers is faster, and the same below 2**31
        words = words.astype(jnp.int32)
    return words.astype(dtype) * jnp.asarray(2.0**-digits, dtype)


def positions(key: Array, size: int, count: int) -> Array:
    """`count` distinct random positions below `size`, in random order: i32[count].

    Each position is among them with probability count / size, as exactly as `jax.random.randint`
    draws uniformly, because the last step shifts all of them by one such draw. Their distances
    come from a keyed permutation of the cells of a table with at least `size` cells, in rounds of
    Feistel: the row is shifted by a hash of the column, then the column by a hash of the row. Only
    `count` cells are computed. A cell that is not a position is permuted again until it is one, and
    the result is still a permutation.

    Args:
      key: one typed key.
      size: below 2**31.
      count: at most `size`.
    """
    rows = max(1, math.isqrt(size))
    columns = max(1, -(-size // rows))  # rows and columns are below 2**16
    round_key = bits(key, (ROUNDS,))

    def permute(cell: Array) -> Array:
        row, column = cell // columns, cell % columns
        for i in range(0, ROUNDS, 2):
            row = _moved(row, column, round_key[i], rows)
            column = _moved(column, row, round_key[i + 1], columns)
        return row * columns + column

    def is_none(cell: Array) -> Array:
        return cell >= size

    cells = permute(lax.iota(jnp.uint32, count))
    cells = lax.while_loop(
        lambda cells: jnp.any(is_none(cells)),
        lambda cells: jnp.where(is_none(cells), permute(cells), cells),
        cells,
    )
    turn = jax.random.randint(key, (), 0, max(size, 1), jnp.int32).astype(jnp.uint32)
    return _add_modulo(cells, turn, size).astype(jnp.int32)


def _moved(here: Array, other: Array, key: Array, limit: int) -> Array:
    """One coordinate, shifted by a hash of the other; both are below 2**16."""
    word = _mix(_mix(other) ^ key)
    return _add_modulo(here, ((word >> 16) * jnp.uint32(limit)) >> 16, limit)


def _add_modulo(a: Array, b: Array, limit: int) -> Array:
    return jnp.where(a + b >= limit, a + b - limit, a + b)


def seeds(key: Array) -> tuple[Array, Array]:
    """Two words of a key.

    The last word is returned as it is, because it is used after a mixer. The words before it are
    mixed here. Otherwise two keys that differ only in them would have the same stream in a slightly
    different order.
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
