"""One reading of an array: counts at two bounds, and what lies strictly between them."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gradzip._axes import vary_like
from gradzip._compat import like_varying
from gradzip._kernels.mosaic import matrices
from gradzip._kernels.mosaic.lanes import LANES
from gradzip._kernels.mosaic.tiles import (
    ON_CHIP,
    SCALARS,
    STEP,
    VMEM_LIMIT,
    count_rows,
    magnitude_within,
    skew,
    total_of,
)

TALL = 512  # rows of a tile
NOT_FOUND = -1


class Inside(NamedTuple):
    """What is between two bounds, lo < hi, and how much is beyond them."""

    slots: jax.Array  # i32[lines, 128], magnitudes strictly between, and -1
    used: jax.Array  # i32[], lines that hold some; more than there are if they did not fit
    above_hi: jax.Array  # i32[], how many magnitudes are larger than hi,
    from_hi: jax.Array  # not smaller than hi,
    above_lo: jax.Array  # larger than lo,
    from_lo: jax.Array  # not smaller than lo


def collect(
    addends: list[jax.Array], size: int, lo: jax.Array, hi: jax.Array, lines: int, interpret: bool
) -> Inside:
    """Reads the array once.

    Args:
      addends: f32[rows, 128], one or two that are added, or matrices of `matrices.width`.
      size: entries of the array, with which the rows are filled one by one.
      lo: the lower bound of magnitudes, i32[].
      hi: the upper bound, i32[].
      lines: of the slots.
      interpret: whether to run on any platform, slowly, for tests.
    """
    x, wide = addends[0], addends[0].shape[1] // LANES
    step = matrices.least(wide, STEP)
    shapes = ((lines, LANES), (32, LANES), (1,))
    slots, counts, used = pl.pallas_call(
        functools.partial(_body, wide=wide, size=size, interpret=interpret),
        grid=(-(-x.size // (step * LANES)),),
        in_specs=[SCALARS, *[matrices.rows_spec(step, wide)] * len(addends)],
        out_specs=[ON_CHIP, ON_CHIP, SCALARS],
        out_shape=[like_varying(shape, jnp.int32, x) for shape in shapes],
        scratch_shapes=[pltpu.VMEM((step, LANES), jnp.float32)] * (wide > 1),
        interpret=interpret,
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_LIMIT),
    )(vary_like(jnp.stack([lo, hi]), x), *addends)
    return Inside(slots, used[0], *jnp.sum(counts.reshape(4, -1), axis=1))


def _body(bounds, *refs: Any, wide: int, size: int, interpret: bool) -> None:
    refs, entries = (refs, refs[:-3]) if wide == 1 else (refs[:-1], refs[-1:])
    addends, (slots, counts, used) = refs[:-3], refs[-3:]
    lo, hi = bounds[0], bounds[1]
    if wide > 1:
        matrices.gather(addends, entries[0], wide)
    step, rows = pl.program_id(0), entries[0].shape[0]

    @pl.when(step == 0)
    def _() -> None:
        counts[...] = jnp.zeros(counts.shape, jnp.int32)
        used[0] = 0

    def tile(number: jax.Array, carry: int) -> int:
        first = pl.multiple_of(number * TALL, TALL)
        x = total_of(entries, (pl.ds(first, TALL), slice(None)))
        u = magnitude_within(x, step * rows + first, size)
        for j, mask in enumerate((u > hi, u >= hi, u > lo, u >= lo)):
            counts[8 * j : 8 * j + 8, :] += count_rows(mask)
        used[0] = _append(skew(u, interpret), lo, hi, slots, used[0])
        return carry

    lax.fori_loop(0, rows // TALL, tile, 0)


def _append(u: jax.Array, lo: jax.Array, hi: jax.Array, slots, start: jax.Array) -> jax.Array:
    """Writes what is between the bounds, the next of each lane in a line; the lines used by then.

    No lane is crossed, so a line is not full where a lane has no more.
    """
    inside = (u > lo) & (u < hi)
    row = jnp.where(inside, lax.broadcasted_iota(jnp.int32, u.shape, 0), TALL)
    u = jnp.where(inside, u, NOT_FOUND)
    fullest = jnp.max(jnp.sum(jnp.where(inside, 1.0, 0.0), axis=0, keepdims=True))
    rounds = fullest.astype(jnp.int32)

    def one(number: jax.Array, at: jax.Array) -> jax.Array:
        at = jnp.min(jnp.where(row > at, row, TALL), axis=0, keepdims=True)
        found = jnp.max(jnp.where(row == at, u, NOT_FOUND), axis=0, keepdims=True)

        @pl.when(start + number < slots.shape[0])
        def _() -> None:
            slots[pl.ds(start + number, 1), :] = found

        return at

    lax.fori_loop(0, rounds, one, jnp.full((1, LANES), -1, jnp.int32))
    return start + rounds
