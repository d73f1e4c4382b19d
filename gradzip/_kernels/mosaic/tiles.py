"""What the kernels of the selection share: magnitudes and counts of tiles of 128 lanes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gradzip._axes import vary_like
from gradzip._kernels.fused import WHOLE, Flat
from gradzip._kernels.mosaic.lanes import LANES, iota

STEP = 2048  # rows that are in on-chip memory at a time
MOST_ROWS = 7 * STEP  # the same of a matrix whose rows do not fill fewer
AFTER_INFINITY = 0x7F800001  # the magnitude of every NaN
VMEM_LIMIT = 100 << 20  # bytes of on-chip memory that a kernel may use

SCALARS = pl.BlockSpec(memory_space=pltpu.SMEM)
ON_CHIP = pl.BlockSpec(memory_space=pltpu.VMEM)
IN_MEMORY = pl.BlockSpec(memory_space=pl.ANY)


def addends_of(x: Flat, wide: int = 1) -> list[jax.Array]:
    """The addends in rows of lanes, padded with zeros: f32[rows, 128] each.

    Args:
      x: one or two arrays of one shape.
      wide: of `matrices.width`; if it is not 1, the addends are matrices f32[rows, wide * 128].
    """
    # Without the barrier, XLA computes an addend as an array of another shape than the one that it
    # replaces, so that it has to be copied.
    parts = [lax.optimization_barrier(part) for part in x if part is not None]
    if wide == 1:
        parts = [jnp.pad(part.ravel(), (0, -x.size % WHOLE)) for part in parts]
    parts = [part.reshape(-1, wide * LANES) for part in parts]
    # One addend may vary over more axes than the other: as their sum, all vary over those of both.
    return [functools.reduce(vary_like, parts, part) for part in parts]


def total_of(refs: Sequence[Any], here: Any) -> jax.Array:
    """Some entries of arrays in on-chip memory, added."""
    return sum_of([ref[here] for ref in refs])


def sum_of(addends: Sequence[jax.Array]) -> jax.Array:
    """The sum of one or two arrays."""
    return functools.reduce(jnp.add, addends)


def magnitude(x: jax.Array) -> jax.Array:
    """Integers in the order of |x|, all NaN equal and largest, as in `_kernels.magnitude`."""
    return jnp.minimum(lax.bitcast_convert_type(x, jnp.int32) & 0x7FFFFFFF, AFTER_INFINITY)


def magnitude_within(x: jax.Array, first_row: jax.Array, size: int) -> jax.Array:
    """The magnitudes of some rows, and -1 after the end of the array."""
    place = (first_row + iota(x.shape, 0)) * LANES + iota(x.shape, 1)
    return jnp.where(place < size, magnitude(x), -1)


def count_rows(mask: jax.Array) -> jax.Array:
    """How many are set in every eighth row of a lane: i32[8, 128]."""
    return jnp.sum(jnp.where(mask, 1, 0).reshape(-1, 8, LANES), axis=0)


def total(x: jax.Array) -> jax.Array:
    """The sum of floats that are whole and below 2**24 together: i32[]."""
    return jnp.sum(x).astype(jnp.int32)


def skew(x: jax.Array, interpret: bool) -> jax.Array:
    """Turns row r by r lanes.

    The kernels handle an entry of every lane at a time. A matrix of 128 columns, one of which is
    large, would else keep one lane busy and the others idle.
    """
    if interpret:  # there a strided roll is a slice for every row, and takes minutes to compile
        return jnp.take_along_axis(x, (iota(x.shape, 1) - iota(x.shape, 0)) & (LANES - 1), axis=1)
    return pltpu.roll(x, 0, 1, stride=1, stride_axis=0)
