"""Two bounds of the k-th largest magnitude, from a sample."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.bits import MASK_MULTIPLE
from gradzip._kernels.magnitude import magnitude
from gradzip._kernels.radix import kth_of

SAMPLE_RANGE = 1 << 13, 1 << 15
DEVIATIONS = 4.5  # a bound from the sample is wrong once in about 300 000 times


class Plan(NamedTuple):
    """Sizes, all static: of the sample, of its bracket, and of what the bracket may hold."""

    stride: int
    size: int  # of the sample
    lower: int  # lo is the lower-th largest of the sample,
    upper: int  # hi the upper-th; 0 where the sample is too small to bound t from above
    capacity: int


def plan(n: int, k: int) -> Plan:
    """The sizes for the k largest of n entries."""
    stride = _prime_at_most(max(1, n // min(max(n >> 7, SAMPLE_RANGE[0]), SAMPLE_RANGE[1])))
    size = -(-n // stride)
    mean = size * k / n
    slack = DEVIATIONS * math.sqrt(mean * (1 - k / n)) + 2
    lower = min(size, math.ceil(mean + slack))
    upper = max(0, math.floor(mean - slack))
    gaps = lower - upper
    capacity = (gaps + DEVIATIONS * math.sqrt(gaps)) * stride
    return Plan(stride, size, lower, upper, math.ceil(capacity / MASK_MULTIPLE) * MASK_MULTIPLE)


def bracket(x: Array, plan: Plan) -> tuple[Array, Array]:
    """Order statistics of a sample, between which the k-th largest of x lies almost surely."""
    sample = magnitude(lax.slice(x, (0,), (x.size,), (plan.stride,)))
    ranks = jnp.array([plan.lower, max(plan.upper, 1)], jnp.int32)
    # A loop stores the sample. Without one, each histogram would gather it again from all over x.
    lo, hi = lax.map(lambda rank: kth_of(sample, rank), ranks)
    return lo, hi if plan.upper else jnp.full_like(hi, jnp.iinfo(hi.dtype).max)


def _prime_at_most(n: int) -> int:
    """A stride that shares no factor with the rows of a matrix, so that it meets all columns."""
    return next(p for p in range(n, 0, -1) if all(p % d for d in range(2, math.isqrt(p) + 1)))
