"""Entries from a threshold on, written one after the other, and zeros where they stood.

The grid runs in order: the kernel counts ties as it goes, and appends what a tile keeps where the
tile before ended. In a tile of 256 rows of 128 lanes,

- the rank of every kept entry comes from products with triangular matrices (of zeros and ones,
  which are exact in bfloat16);
- the next kept entry of each lane is found by rows, until no lane has more;
- these 128 entries go to the lanes rank % 128 by a product with a one-hot matrix, of the bytes of
  values and indices (below 256: exact), and to the lines rank // 128 by masks;
- complete lines leave on-chip memory in copies of 512.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gradzip._axes import vary_like
from gradzip._compat import like_varying
from gradzip._kernels.mosaic import matrices
from gradzip._kernels.mosaic.lanes import LANES, iota
from gradzip._kernels.mosaic.tiles import (
    IN_MEMORY,
    SCALARS,
    STEP,
    VMEM_LIMIT,
    magnitude_within,
    skew,
    total,
    total_of,
)

TILE = 256  # rows
AREA = TILE * LANES  # row * AREA + rank is exact in float32
FAR = float(TILE * AREA)
PACK = 8  # lines that one product fills
UNROLL = 4  # products in flight
FLUSH = 512  # lines that are copied to memory together
NONE = -(1 << 20)  # the rank of no entry


def compact(
    addends: list[jax.Array], size: int, k: int, t: jax.Array, ties: jax.Array, interpret: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The k entries from a threshold on: values f32[k], indices i32[k], and x without them.

    Args:
      addends: f32[rows, 128], one or two that are added, or matrices of `matrices.width`. The last
        result is written in the place of the first if that is not used afterwards.
      size: entries of the array, with which the rows are filled one by one.
      k: how many magnitudes are larger than t, with the first `ties` that equal it.
      t: i32[], a magnitude.
      ties: i32[].
      interpret: whether to run on any platform, slowly, for tests.
    """
    x, lines = addends[0], -(-k // LANES) + 1
    wide = x.shape[1] // LANES
    step = matrices.least(wide, STEP)
    rows = matrices.rows_spec(step, wide)
    all_at_once = lines <= FLUSH + TILE
    stage = (-(-lines // PACK) * PACK if all_at_once else FLUSH + TILE) + 2 * PACK
    held = stage if all_at_once else k // LANES // FLUSH * FLUSH + stage
    numbers = functools.partial(pltpu.VMEM, dtype=jnp.int32)
    values, indices, rest = pl.pallas_call(
        functools.partial(
            _body,
            step_rows=step,
            wide=wide,
            size=size,
            stage=stage,
            flushes=not all_at_once,
            interpret=interpret,
        ),
        grid=(-(-x.size // (step * LANES)),),
        in_specs=[SCALARS, *[rows] * len(addends)],
        out_specs=[IN_MEMORY, IN_MEMORY, rows],
        out_shape=[like_varying((held, LANES), jnp.int32, x)] * 2
        + [like_varying(x.shape, jnp.float32, x)],
        scratch_shapes=[
            pltpu.VMEM((TILE, LANES), jnp.float32),
            *[numbers((TILE + PACK, LANES))] * 3,
            *[numbers((stage, LANES))] * 2,
            pltpu.SMEM((3,), jnp.int32),
            *[pltpu.VMEM((step, LANES), jnp.float32)] * (wide > 1),
        ],
        input_output_aliases={1: 2},
        interpret=interpret,
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_LIMIT),
    )(vary_like(jnp.stack([t, ties]), x), *addends)
    values = lax.bitcast_convert_type(values.reshape(-1)[:k], jnp.float32)
    return values, indices.reshape(-1)[:k], rest


def _body(
    limits, *refs: Any,
    step_rows: int, wide: int, size: int, stage: int, flushes: bool, interpret: bool,
) -> None:  # fmt: skip
    """One step. `state` is: entries in the stage, ties seen, lines copied to memory."""
    refs, flat = (refs, None) if wide == 1 else (refs[:-1], refs[-1])
    addends, refs = refs[:-10], refs[-10:]
    values_out, indices_out, rest, keep, found, rank, where, values, indices, state = refs
    t, ties = limits[0], limits[1]
    step, entries, left = pl.program_id(0), addends, rest
    if flat is not None:  # rows of a matrix, which are put in order and in the end back
        matrices.gather(addends, flat, wide)
        entries, left = [flat], flat

    @pl.when(step == 0)
    def _() -> None:
        for i in range(3):
            state[i] = 0

    def copy(lines: int) -> None:
        there = pl.ds(pl.multiple_of(state[2], PACK), lines)
        pltpu.sync_copy(values.at[pl.ds(0, lines), :], values_out.at[there, :])
        pltpu.sync_copy(indices.at[pl.ds(0, lines), :], indices_out.at[there, :])

    def flush() -> None:
        copy(FLUSH)
        for ref in (values, indices):
            ref[0 : stage - FLUSH, :] = ref[FLUSH:stage, :]
        state[0] -= FLUSH * LANES
        state[2] += FLUSH

    def tile(number: jax.Array, carry: int) -> int:
        here = pl.multiple_of(number * TILE, TILE)
        some = total_of(entries, (pl.ds(here, TILE), slice(None)))
        first_row = step * step_rows + here
        kept = _kept(magnitude_within(some, first_row, size), t, ties, keep, state)
        left[pl.ds(here, TILE), :] = jnp.where(kept > 0, 0.0, some)
        lanes = jnp.sum(skew(kept, interpret), axis=0, keepdims=True)
        count, rounds = total(lanes), jnp.max(lanes).astype(jnp.int32)

        @pl.when(count > 0)
        def _() -> None:
            _in_rounds(some, kept, rounds, found, rank, where, interpret)
            base = first_row * LANES
            _store(found, rank, where, values, indices, state[0], count, rounds, base)
            state[0] += count
            if flushes:
                pl.when(state[0] >= FLUSH * LANES)(flush)

        return carry

    lax.fori_loop(0, step_rows // TILE, tile, 0)
    if flat is not None:
        matrices.spread(flat, rest, wide)

    @pl.when(step == pl.num_programs(0) - 1)
    def _() -> None:
        copy(stage)


def _kept(u: jax.Array, t: jax.Array, ties: jax.Array, keep, state) -> jax.Array:
    """One where an entry of a tile is kept, f32[256, 128]: above t, or one of the first ties."""
    tie = jnp.where(u == t, 1.0, 0.0)
    keep[...] = jnp.where(u > t, 1.0, 0.0)
    equal, seen = total(tie), state[1]

    @pl.when((equal > 0) & (seen < ties))
    def _() -> None:
        keep[...] += jnp.where(_before(tie) < (ties - seen).astype(jnp.float32), tie, 0.0)

    state[1] = seen + equal
    return keep[...]


def _before(mask: jax.Array) -> jax.Array:
    """How many of a mask come before each entry of a tile, row by row."""
    ones = mask.astype(jnp.bfloat16)
    square, tall = (LANES, LANES), (TILE, TILE)
    earlier_lanes = jnp.where(iota(square, 0) < iota(square, 1), 1.0, 0.0).astype(jnp.bfloat16)
    earlier_rows = jnp.where(iota(tall, 0) > iota(tall, 1), 1.0, 0.0).astype(jnp.bfloat16)
    in_row = _dot(ones, jnp.ones(square, jnp.bfloat16)).astype(jnp.bfloat16)  # at most 128: exact
    return _dot(ones, earlier_lanes) + _dot(earlier_rows, in_row)


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _in_rounds(
    entries: jax.Array, kept: jax.Array, rounds: jax.Array, found, rank, where, interpret: bool
) -> None:  # fmt: skip
    """Line r of `found`, `rank` and `where` has the r-th kept entry of each lane.

    That is its bits, its rank in the tile or NONE, and its place in the tile.
    """
    row = (iota(kept.shape, 0) * AREA).astype(jnp.float32)
    key = skew(jnp.where(kept > 0, row + _before(kept), FAR), interpret)
    bits = skew(lax.bitcast_convert_type(entries, jnp.int32), interpret)
    lane = iota((1, LANES), 1)

    def one(number: jax.Array, at: jax.Array) -> jax.Array:
        at = jnp.min(jnp.where(key > at, key, FAR), axis=0, keepdims=True)
        both = at.astype(jnp.int32)
        row = both >> (AREA.bit_length() - 1)
        here = pl.ds(number, 1)
        found[here, :] = jnp.sum(jnp.where(key == at, bits, 0), axis=0, keepdims=True)
        rank[here, :] = jnp.where(at < FAR, both & (AREA - 1), NONE)
        where[here, :] = row * LANES + ((lane - row) & (LANES - 1))
        return at

    lax.fori_loop(0, rounds, one, jnp.full((1, LANES), -1.0, jnp.float32))
    for j in range(UNROLL - 1):
        rank[pl.ds(rounds + j, 1), :] = jnp.full((1, LANES), NONE, jnp.int32)


def _store(
    found, rank, where, values, indices,
    start: jax.Array, count: jax.Array, rounds: jax.Array, base: jax.Array,
) -> None:  # fmt: skip
    """Writes what the rounds found behind the `start` entries of the stage, by rank."""
    shift, first = start & (LANES - 1), start >> 7
    line = iota((PACK, LANES), 0)

    def window(number: jax.Array, carry: int) -> int:
        """The next eight lines of the stage."""

        def product(r: jax.Array) -> jax.Array:
            slot = rank[pl.ds(r, 1), :] + (shift - number * (PACK * LANES))
            hot = jnp.where(iota((LANES, LANES), 0) == (slot & (LANES - 1)), 1.0, 0.0)
            mine = line == (slot >> 7)

            def byte(x: jax.Array, j: int) -> jax.Array:
                part = lax.shift_right_logical(x, 8 * j) & 255
                return jnp.where(mine, part, 0).astype(jnp.float32)

            value, place = found[pl.ds(r, 1), :], where[pl.ds(r, 1), :]
            parts = [byte(value, j) for j in range(4)] + [byte(place, j) for j in range(2)]
            return lax.dot_general(
                jnp.concatenate(parts).astype(jnp.bfloat16),
                hot.astype(jnp.bfloat16),
                (((1,), (1,)), ((), ())),
                preferred_element_type=jnp.float32,
            )

        def some(group: jax.Array, sums: jax.Array) -> jax.Array:
            return sums + sum(product(UNROLL * group + j) for j in range(UNROLL))

        zeros = jnp.zeros((6 * PACK, LANES), jnp.float32)
        sums = lax.fori_loop(0, (rounds + UNROLL - 1) >> 2, some, zeros).astype(jnp.int32)
        byte = [sums[PACK * j : PACK * j + PACK] for j in range(6)]
        value = byte[0] | (byte[1] << 8) | (byte[2] << 16) | (byte[3] << 24)
        index = (byte[4] | (byte[5] << 8)) + base
        at = (line + number * PACK) * LANES + iota((PACK, LANES), 1)
        here = (at >= shift) & (at < shift + count)
        lines = pl.ds(first + number * PACK, PACK)
        values[lines, :] = jnp.where(here, value, values[lines, :])
        indices[lines, :] = jnp.where(here, index, indices[lines, :])
        return carry

    lax.fori_loop(0, (shift + count + PACK * LANES - 1) >> 10, window, 0)
