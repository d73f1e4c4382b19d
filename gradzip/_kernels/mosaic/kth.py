"""Two order statistics of integers that lie in on-chip memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gradzip._axes import vary_like
from gradzip._compat import like_varying
from gradzip._kernels.mosaic.lanes import LANES, iota
from gradzip._kernels.mosaic.tiles import ON_CHIP, SCALARS, VMEM_LIMIT, count_rows, total

SUB = 64  # rows that are compared at a time


def kth(
    u: jax.Array, used: jax.Array, ranks: tuple[jax.Array, jax.Array], interpret: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The integers of two ranks among the first rows, and how many are larger than the first.

    Args:
      u: i32[rows, 128], rows a multiple of 64; negative integers count as none.
      used: how many rows hold integers.
      ranks: from 1, the largest.
      interpret: whether to run on any platform, slowly, for tests.
    """
    limits = vary_like(jnp.stack([used, *ranks]).astype(jnp.int32), u)
    out = pl.pallas_call(
        _body,
        in_specs=[SCALARS, ON_CHIP],
        out_specs=SCALARS,
        out_shape=like_varying((3,), jnp.int32, u),
        interpret=interpret,
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_LIMIT),
    )(limits, u)
    return out[0], out[1], out[2]


def _body(limits, u, out) -> None:
    """By halving the range: 31 readings of on-chip memory for each rank."""
    used = limits[0]

    def count(test) -> jax.Array:
        def some(chunk: jax.Array, counts: jax.Array) -> jax.Array:
            first = pl.multiple_of(chunk * SUB, SUB)
            x = u[pl.ds(first, SUB), :]
            return counts + count_rows(test(x) & (iota(x.shape, 0) + first < used))

        zeros = jnp.zeros((8, LANES), jnp.int32)
        counts = lax.fori_loop(0, (used + SUB - 1) >> 6, some, zeros)
        high, low = (part.astype(jnp.float32) for part in (counts >> 8, counts & 255))
        return (total(high) << 8) + total(low)

    def of_rank(rank: jax.Array) -> jax.Array:
        def bit(number: jax.Array, t: jax.Array) -> jax.Array:
            higher = t | (1 << (30 - number))
            return jnp.where(count(lambda x: x >= higher) >= rank, higher, t)

        return lax.fori_loop(0, 31, bit, 0)

    first = of_rank(limits[1])
    out[0] = first
    out[1] = of_rank(limits[2])
    out[2] = count(lambda x: x > first)
