"""The k-th largest of many integers, by a histogram of one digit at a time.

The plain form is `jnp.sort(u)[-k]`. A histogram needs one pass over the integers for each of three
digits of 11 bits, and no second array of their size.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from gradzip._base import Array
from gradzip._kernels.magnitude import magnitude

Count = Callable[[Array, Array], Array]

DIGIT_BITS = 11
DIGITS = 1 << DIGIT_BITS  # counters of a histogram, which fit the first cache
COUNTED_AT_ONCE = 1 << 18  # entries, so that no temporary is as large as the array


def kth_of(u: Array, rank: Array | int) -> Array:
    """The rank-th largest of u, from 1; negative integers in u count as none."""
    return _kth(lambda prefix, shift: _histogram(u, prefix, shift), u[0] * 0, rank)


def kth_magnitude(x: Array, rank: int) -> Array:
    """The rank-th largest magnitude of x, with no temporary as large as x."""
    size = min(COUNTED_AT_ONCE, x.size)
    starts = lax.iota(jnp.int32, -(-x.size // size)) * size

    def count(prefix: Array, shift: Array) -> Array:
        def one(start: Array) -> Array:
            first = jnp.minimum(start, x.size - size)  # the last chunk overlaps the one before
            u = magnitude(lax.dynamic_slice(x, (first,), (size,)))
            u = jnp.where(first + lax.iota(jnp.int32, size) >= start, u, -1)
            return _histogram(u, prefix, shift)

        return jnp.sum(lax.map(one, starts), axis=0, dtype=jnp.int32)

    return _kth(count, magnitude(x[:1])[0] * 0, rank)


def _kth(count: Count, zero: Array, rank: Array | int) -> Array:
    """The rank-th largest of what `count` counts, digit by digit from the top.

    Args:
      count: of a prefix and a shift, how many entries continue the prefix with each digit:
        i32[DIGITS].
      zero: a scalar of the entries' dtype which varies over the same axes as they do, because a
        loop carries a value of that type.
      rank: from 1.
    """

    def narrow(carry: tuple[Array, Array], shift: Array) -> tuple[tuple[Array, Array], None]:
        prefix, rank = carry
        at_least = lax.cumsum(count(prefix, shift), reverse=True)
        digit = jnp.sum(at_least >= rank, dtype=jnp.int32) - 1
        higher = jnp.where(lax.iota(jnp.int32, DIGITS) == digit + 1, at_least, 0)
        prefix = (prefix << DIGIT_BITS) + digit.astype(prefix.dtype)
        return (prefix, rank - jnp.sum(higher, dtype=jnp.int32)), None

    bits = jnp.iinfo(zero.dtype).bits - 1
    shifts = np.arange(bits // DIGIT_BITS * DIGIT_BITS, -1, -DIGIT_BITS).astype(zero.dtype)
    (prefix, _), _ = lax.scan(narrow, (zero, rank + zero.astype(jnp.int32)), jnp.asarray(shifts))
    return prefix


def _histogram(u: Array, prefix: Array, shift: Array) -> Array:
    """Counts of the next digit among the entries whose higher digits are `prefix`."""
    digit = (u >> shift) - (prefix << DIGIT_BITS)
    digit = jnp.where((digit >= 0) & (digit < DIGITS), digit, DIGITS).astype(jnp.int32)
    counts = jnp.zeros(DIGITS + 1, jnp.int32)
    counts = counts.at[digit].add(1, mode='promise_in_bounds', wrap_negative_indices=False)
    return counts[:DIGITS]
