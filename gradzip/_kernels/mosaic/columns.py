"""The largest entry of each column of tiles, and what is left, in one reading and one writing."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from gradzip._compat import like_varying
from gradzip._kernels.fused import Flat
from gradzip._kernels.mosaic.lanes import LANES, iota
from gradzip._kernels.mosaic.tiles import STEP, addends_of, magnitude, total_of

TILES = 8  # a step handles a multiple of so many


def take_largest(
    x: Flat, rows: int, interpret: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Places i32[tiles, 128], values f32[tiles, 128] and f32[n] with zeros there.

    Args:
      x: f32[n], of at least one tile, or a sum. The rest takes the place of the array or of the
        first addend. What is after the last whole tile is left as it is.
      rows: of a tile, a multiple of 8.
      interpret: whether to run on any platform, slowly, for tests.
    """
    size, tiles = x.size, x.size // (rows * LANES)
    addends = addends_of(x)
    one = addends[0]
    each = max(1, STEP // (rows * TILES)) * TILES  # tiles of a step
    whole = pl.BlockSpec((each * rows, LANES), lambda i: (i, 0))
    line = pl.BlockSpec((each, LANES), lambda i: (i, 0))
    found = [like_varying((tiles, LANES), dtype, one) for dtype in (jnp.int32, jnp.float32)]
    places, values, rest = pl.pallas_call(
        functools.partial(_body, each=each, rows=rows, tiles=tiles),
        grid=(-(-tiles // each),),
        in_specs=[whole] * len(addends),
        out_specs=[line, line, whole],
        out_shape=[*found, like_varying(one.shape, jnp.float32, one)],
        input_output_aliases={0: 2},
        interpret=interpret,
    )(*addends)
    return places, values, rest.reshape(-1)[:size]


def _body(*refs: Any, each: int, rows: int, tiles: int) -> None:
    addends, (places, values, rest) = refs[:-3], refs[-3:]
    first = pl.program_id(0) * each

    def tile(number: jax.Array, carry: int) -> int:
        here = pl.ds(pl.multiple_of(number * rows, 8), rows)
        entries = total_of(addends, (here, slice(None)))
        u, row = magnitude(entries), iota((rows, LANES), 0)
        top = jnp.max(u, axis=0, keepdims=True)
        place = jnp.min(jnp.where(u == top, row, rows), axis=0, keepdims=True)
        mine = row == place
        bits = lax.bitcast_convert_type(entries, jnp.int32)
        lowest = jnp.iinfo(jnp.int32).min
        # The bits, because a sum of floats would lose a subnormal number and the sign of a zero.
        kept = jnp.max(jnp.where(mine, bits, lowest), axis=0, keepdims=True)
        places[pl.ds(number, 1), :] = place
        values[pl.ds(number, 1), :] = lax.bitcast_convert_type(kept, jnp.float32)
        # After the last whole tile everything stays as it is.
        rest[here, :] = jnp.where(mine & (first + number < tiles), 0.0, entries)
        return carry

    lax.fori_loop(0, each, tile, 0)
