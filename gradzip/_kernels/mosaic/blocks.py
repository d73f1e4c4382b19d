"""The k largest entries of each block, and what is left, in one reading and one writing.

A step handles 128 blocks, or rows of shorter ones. They are transposed in on-chip memory, so that
every lane holds a block: the number of entries from a bound on is then a sum of rows for 128 blocks
at once. The threshold of each is found by halving, and so is the last of the ties that are kept.
What is kept is found by rows, in parts of 128, until no lane has more. It is transposed once more,
and written block by block, because XLA would pad a matrix of few columns to 128 lanes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gradzip._compat import like_varying
from gradzip._kernels.fused import Flat
from gradzip._kernels.mosaic import matrices
from gradzip._kernels.mosaic.lanes import LANES, SUBLANES, iota
from gradzip._kernels.mosaic.tiles import (
    AFTER_INFINITY,
    VMEM_LIMIT,
    addends_of,
    count_rows,
    magnitude,
    total_of,
)

MAGNITUDE_BITS = 31
LOWEST = jnp.iinfo(jnp.int32).min


class Taken(NamedTuple):
    """The entries that are kept of every whole block, ascending by place, and what is left."""

    values: jax.Array  # f32[blocks * k]
    offsets: jax.Array  # i32[blocks * k]
    rest: jax.Array  # f32, of the shape of x, with zeros where entries were taken


def take_largest(x: Flat, block: int, k: int) -> Taken:
    """Takes the k entries of largest magnitude of each block.

    Args:
      x: f32 of n entries, or a sum. The rest takes the place of the array or of the first addend.
        What is after the last whole block is left as it is.
      block: a multiple of 128, or 32 or 64.
      k: from 1 to block, at most 128. Ties go to the lower index; NaN is larger than infinity.
    """
    size, parts, shape = x.size, max(1, LANES // block), x.first.shape
    step = LANES * max(1, block // LANES)  # rows of lanes
    wide = matrices.width(shape, step, step)
    addends = addends_of(x, wide)
    one, steps = addends[0], -(-addends[0].size // (step * LANES))
    whole = matrices.rows_spec(step, wide)
    few = pl.BlockSpec((1, parts * k, LANES), lambda i: (i, 0, 0))
    found = [
        like_varying((steps, parts * k, LANES), dtype, one) for dtype in (jnp.float32, jnp.int32)
    ]
    values, offsets, rest = pl.pallas_call(
        functools.partial(_body, wide=wide, block=block, k=k, blocks=size // block),
        grid=(steps,),
        in_specs=[whole] * len(addends),
        out_specs=[few, few, whole],
        out_shape=[*found, like_varying(one.shape, jnp.float32, one)],
        scratch_shapes=[
            *[pltpu.VMEM((LANES + SUBLANES, LANES), jnp.int32)] * 2,
            *[pltpu.VMEM((step, LANES), jnp.int32)] * 2,
            *[pltpu.VMEM((step, LANES), jnp.float32)] * (wide > 1),
        ],
        input_output_aliases={0: 2},
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_LIMIT),
    )(*addends)
    values, offsets = (found.reshape(-1)[: size // block * k] for found in (values, offsets))
    return Taken(values, offsets, rest.reshape(-1)[:size].reshape(shape))


def _body(*refs: Any, wide: int, block: int, k: int, blocks: int) -> None:
    refs, flat = (refs, None) if wide == 1 else (refs[:-1], refs[-1])
    addends, refs = refs[:-7], refs[-7:]
    values_out, offsets_out, rest, values, offsets, bits, u = refs
    parts, tall = max(1, LANES // block), max(1, block // LANES)
    entries, left = addends, rest
    if flat is not None:  # rows of a matrix, which are put in order and in the end back
        matrices.gather(addends, flat, wide)
        entries, left = (flat,), flat

    def turn(row: jax.Array, carry: int) -> int:
        """Row `row` of each block, with a lane for every block."""
        x = total_of(entries, (_rows(row, tall), slice(None))).T
        here = pl.ds(pl.multiple_of(row * LANES, LANES), LANES)
        bits[here, :] = lax.bitcast_convert_type(x, jnp.int32)
        u[here, :] = magnitude(x)
        return carry

    lax.fori_loop(0, tall, turn, 0)
    for part in range(parts):
        number = (pl.program_id(0) * LANES + iota((1, LANES), 1)) * parts + part
        _take(u, bits, values, offsets, part, block, k, number < blocks)

    for held, out in ((values, values_out), (offsets, offsets_out)):
        _write(held, out, parts * k)

    def turn_back(row: jax.Array, carry: int) -> int:
        here = pl.ds(pl.multiple_of(row * LANES, LANES), LANES)
        left[_rows(row, tall), :] = lax.bitcast_convert_type(bits[here, :], jnp.float32).T
        return carry

    lax.fori_loop(0, tall, turn_back, 0)
    if flat is not None:
        matrices.spread(flat, rest, wide)


def _rows(first: jax.Array, tall: int) -> Any:
    """A row of each block."""
    return pl.ds(first, LANES, tall)


def _take(
    u: Any, bits: Any, values: Any, offsets: Any, part: int, block: int, k: int, whole: jax.Array
) -> None:
    """Takes what is kept of one block of each lane, of those that are whole: bool[1, 128]."""
    height, first = min(block, LANES), part * block
    chunks = block // height

    def entries(ref: Any, chunk: jax.Array) -> tuple[jax.Array, Any]:
        """Some entries of each block, and where they are."""
        here = pl.ds(pl.multiple_of(first + chunk * height, height), height)
        return ref[here, :], here

    def place(chunk: jax.Array) -> jax.Array:
        return iota((height, LANES), 0) + chunk * height

    def count(test: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
        def some(chunk: jax.Array, counts: jax.Array) -> jax.Array:
            return counts + count_rows(test(entries(u, chunk)[0], place(chunk)))

        zeros = jnp.zeros((SUBLANES, LANES), jnp.int32)
        return jnp.sum(lax.fori_loop(0, chunks, some, zeros), axis=0, keepdims=True)

    t = _largest(MAGNITUDE_BITS, lambda t: count(lambda u, _: u >= t) >= k)
    missing = k - count(lambda u, _: u > t)
    spare = count(lambda u, _: u == t) - missing
    some_spare = jnp.max(spare.astype(jnp.float32)) > 0
    rounds = jnp.where(some_spare, (block - 1).bit_length(), 0)
    # The largest place that fewer ties precede than are missing is that of the last one kept.
    last = _largest(rounds, lambda m: count(lambda u, at: (u == t) & (at < m)) < missing)
    last = jnp.where(some_spare, last, block)
    t = jnp.where(whole, t, AFTER_INFINITY + 1)

    def take(chunk: jax.Array, start: jax.Array) -> jax.Array:
        (x, _), (mine, here) = entries(u, chunk), entries(bits, chunk)
        kept = (x > t) | ((x == t) & (place(chunk) <= last))
        bits[here, :] = jnp.where(kept, 0, mine)
        row = jnp.where(kept, iota(kept.shape, 0), height)
        held = jnp.sum(jnp.where(kept, 1.0, 0.0), axis=0, keepdims=True)

        def one(number: jax.Array, at: jax.Array) -> jax.Array:
            """The next one of each lane, which has one or not."""
            at = jnp.min(jnp.where(row > at, row, height), axis=0, keepdims=True)
            value = jnp.max(jnp.where(row == at, mine, LOWEST), axis=0, keepdims=True)
            slot = jnp.where(at < height, start + number, -1)
            out = pl.ds(part * k, k)
            ours = iota((k, LANES), 0) == slot
            values[out, :] = jnp.where(ours, value, values[out, :])
            offsets[out, :] = jnp.where(ours, at + chunk * height, offsets[out, :])
            return at

        rounds = jnp.max(held).astype(jnp.int32)
        lax.fori_loop(0, rounds, one, jnp.full((1, LANES), -1, jnp.int32))
        return start + held.astype(jnp.int32)

    lax.fori_loop(0, chunks, take, jnp.zeros((1, LANES), jnp.int32))


def _write(held: Any, out: Any, count: int) -> None:
    """Writes `count` rows with a lane for each row of blocks, one row of blocks after the other."""
    held[:LANES, :] = held[:LANES, :].T

    def line(number: jax.Array, carry: int) -> int:
        """Row `number` of what is written begins in row `first` of what is held."""
        first = lax.div(number * LANES, count)
        place = iota((SUBLANES, LANES), 1) + (number * LANES - first * count)
        row = (place * -(-(1 << 16) // count)) >> 16  # the quotient, exact below 256
        lane = place - row * count

        def of_row(i: jax.Array, found: jax.Array) -> jax.Array:
            all_of_row = jnp.broadcast_to(held[pl.ds(first + i, 1), :], found.shape)
            return jnp.where(row == i, jnp.take_along_axis(all_of_row, lane, axis=1), found)

        found = lax.fori_loop(0, LANES // count + 2, of_row, jnp.zeros_like(place))
        found = lax.bitcast_convert_type(found[:1], out.dtype)
        out[0, pl.ds(number, 1), :] = found
        return carry

    lax.fori_loop(0, count, line, 0)


def _largest(bits: jax.Array | int, holds: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The largest integer of some bits for which a test holds that holds for all below it."""

    def bit(number: jax.Array, t: jax.Array) -> jax.Array:
        higher = t | (1 << (bits - 1 - number))
        return jnp.where(holds(higher), higher, t)

    return lax.fori_loop(0, bits, bit, jnp.zeros((1, LANES), jnp.int32))
