"""The k entries of largest magnitude, and the array without them, in three passes over memory.

A sample of rows brackets the threshold, as in the plain form. One kernel counts what is beyond the
bounds and collects what is between them, so that the threshold is one of the bounds or an order
statistic of what was collected. Another one writes values, indices and what is left. Nothing is
sorted, gathered or scattered. Where the sample misled, or what is between the bounds does not fit
(many near ties in one place), the threshold is found four bits at a time, in eight more passes.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._kernels.bracket import DEVIATIONS
from gradzip._kernels.fused import Flat
from gradzip._kernels.mosaic import matrices
from gradzip._kernels.mosaic.compact import compact
from gradzip._kernels.mosaic.inside import TALL, collect
from gradzip._kernels.mosaic.kth import SUB, kth
from gradzip._kernels.mosaic.lanes import LANES
from gradzip._kernels.mosaic.tiles import (
    AFTER_INFINITY,
    MOST_ROWS,
    STEP,
    addends_of,
    magnitude,
    sum_of,
)

DENSEST, FEWEST_SAMPLED = 128, 512  # one row in so many is sampled, but at least so many rows
DIGIT_BITS = 4
Rows = list[jax.Array]  # of one or two addends, f32[rows, 128] each, or matrices
DIGITS = 8  # which have at least the 31 bits of a magnitude


def top_k(x: Flat, k: int, interpret: bool = False) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Values f32[k], indices i32[k], ascending, and f32 of the shape of x with zeros there.

    Args:
      x: f32 of n entries, or a sum. The last result takes the place of the array or of the first
        addend.
      k: from 1 to n - 1. Ties go to the lower index; NaN is larger than infinity.
      interpret: whether to run on any platform, slowly, for tests.
    """
    size = x.size
    rows = addends_of(x, matrices.width(x.first.shape, STEP, MOST_ROWS))
    t, larger = _threshold(rows, size, k, interpret)
    values, indices, rest = compact(rows, size, k, t, k - larger, interpret)
    return values, indices, rest.reshape(-1)[:size].reshape(x.first.shape)


def _threshold(rows: Rows, size: int, k: int, interpret: bool) -> tuple[jax.Array, jax.Array]:
    """The k-th largest magnitude, and how many are larger."""
    lo, hi, lines = _bounds(rows, size, k, interpret)
    found = collect(rows, size, lo, hi, lines, interpret)
    rank = jnp.maximum(k - found.from_hi, 1)
    used = jnp.minimum(found.used, lines)
    inner, _, larger = kth(found.slots, used, (rank, rank), interpret)
    between = (found.from_hi < k) & (k <= found.above_lo) & (found.used <= lines)
    at_hi = (found.above_hi < k) & (k <= found.from_hi)
    at_lo = (found.above_lo < k) & (k <= found.from_lo)
    t = jnp.where(between, inner, jnp.where(at_hi, hi, lo))
    beyond = jnp.where(at_hi, found.above_hi, found.above_lo)
    larger = jnp.where(between, larger + found.from_hi, beyond)
    return lax.cond(between | at_hi | at_lo, lambda: (t, larger), lambda: _by_digits(rows, size, k))


def _bounds(rows: Rows, size: int, k: int, interpret: bool) -> tuple[jax.Array, jax.Array, int]:
    """Two order statistics of a sample, and how many lines what is between them will take."""
    width = rows[0].shape[1]
    count = size // width  # whole rows
    stride = max(1, min(DENSEST, size // LANES // FEWEST_SAMPLED, count))
    # A reshape to [., stride, .] would copy an array if the stride is not a multiple of 8.
    each = [part[stride // 2 : count // stride * stride : stride] for part in rows]
    sampled = sum_of(each).reshape(-1, LANES)
    mean = sampled.size * k / size
    slack = DEVIATIONS * math.sqrt(mean * (1 - k / size)) + 2
    lower, upper = min(sampled.size, math.ceil(mean + slack)), max(0, math.floor(mean - slack))
    u = jnp.pad(magnitude(sampled), ((0, -sampled.shape[0] % SUB), (0, 0)), constant_values=-1)
    ranks = jnp.int32(lower), jnp.int32(max(upper, 1))
    lo, hi, _ = kth(u, jnp.int32(sampled.shape[0]), ranks, interpret)
    if not upper:
        hi = jnp.full_like(hi, AFTER_INFINITY + 1)
    return lo, hi, _lines(rows[0].size // LANES, (lower - upper) / sampled.size)


def _lines(rows: int, share: float) -> int:
    """How many lines hold a share of random entries, if each tile takes those of its fullest lane.

    That is the largest of 128 numbers of this mean, which exceeds it by about three deviations.
    """
    mean = TALL * share
    lines = -(-rows // TALL) * math.ceil(mean + 3.5 * math.sqrt(mean) + 3)
    return -(-lines // SUB) * SUB


def _by_digits(rows: Rows, size: int, k: int) -> tuple[jax.Array, jax.Array]:
    """The same threshold, from eight readings of the array with fifteen comparisons each."""

    def at_least(x: jax.Array, t: jax.Array) -> jax.Array:
        place = lax.iota(jnp.int32, x.size).reshape(x.shape)
        return jnp.sum((magnitude(x) >= t) & (place < size), dtype=jnp.int32)

    def digit(number: jax.Array, t: jax.Array) -> jax.Array:
        parts, t = lax.optimization_barrier((rows, t))  # so that XLA does not store magnitudes
        x = sum_of(parts)
        shift = DIGIT_BITS * (DIGITS - 1 - number)
        # The highest digit has three bits: a fourth would be the sign.
        tops = [t | (j << shift) for j in range(1, 1 << DIGIT_BITS)]
        reached = sum(((at_least(x, top) >= k) & (top >= t)).astype(jnp.int32) for top in tops)
        return t | (reached << shift)

    t = lax.fori_loop(0, DIGITS, digit, rows[0][0, 0].astype(jnp.int32) * 0)
    return t, at_least(sum_of(rows), t + 1)
