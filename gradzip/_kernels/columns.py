"""The entry of largest magnitude of every column of a tile of some rows of 128 lanes.

A row of 128 lanes holds 128 consecutive entries, so that all comparisons are between whole rows. An
accelerator finds the entries in one reading, and needs no sort, gather or scatter for it.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from gradzip._base import Array
from gradzip._kernels.fused import LANES, SUBLANES, Flat, fused, one_at_a_time
from gradzip._kernels.magnitude import magnitude
from gradzip._kernels.platform import choose
from gradzip._kernels.selection import read, remove

MOST_AT_ONCE = 16  # rows that one reduction compares on CPU


def largest_places(x: Array, rows: int) -> Array:
    """The row of the largest magnitude of each column of each whole tile: i32[tiles, 128].

    Ties go to the lower row; all NaN are equal, and larger than infinity.

    Args:
      x: f[n].
      rows: of a tile.
    """
    return choose(x, cpu=_places_on_cpu, default=_places, rows=rows)


def _tiles(x: Array, rows: int) -> Array:
    tiles = x.size // (rows * LANES)
    return x[: tiles * rows * LANES].reshape(tiles, rows, LANES)


def _places(x: Array, rows: int) -> Array:
    return jnp.argmax(magnitude(_tiles(x, rows)), axis=1).astype(jnp.int32)


def _places_on_cpu(x: Array, rows: int) -> Array:
    """In two readings: the largest magnitudes, and the first rows that have them."""
    u = magnitude(_tiles(x, rows))
    tiles, count = u.shape[0], _reduced_at_once(rows)
    width = rows // count
    u = u.reshape(tiles, count, width * LANES)
    top = _largest(u)
    top = jnp.broadcast_to(top[:, None], (tiles, width, LANES)).reshape(tiles, 1, width * LANES)
    row = lax.broadcasted_iota(jnp.int32, (1, rows, LANES), 1).reshape(1, count, width * LANES)
    return rows - _largest(jnp.where(u == top, rows - row, 0))


def _largest(u: Array) -> Array:
    """Over all rows of 128 lanes in [tiles, rows, lanes]: [tiles, 128]."""
    u = lax.reduce(u, jnp.zeros([], u.dtype), _larger, (1,))
    rows = u.shape[1] // LANES
    count = _reduced_at_once(rows)
    return u if rows == 1 else _largest(u.reshape(u.shape[0], count, rows // count * LANES))


def _reduced_at_once(rows: int) -> int:
    """XLA vectorises a reduction over the middle axis on CPU if it is short.

    For 104 rows that takes 2 ms for 10 million entries, and 40 ms in one reduction.
    """
    return max((d for d in range(2, MOST_AT_ONCE + 1) if rows % d == 0), default=rows)


def _larger(a: Array, b: Array) -> Array:
    return jnp.where(a > b, a, b)  # XLA vectorises this on CPU, but not `maximum` of integers


def take_largest(x: Flat, rows: int) -> tuple[Array, Array, Array]:
    """What `largest_places` returns, these entries f[tiles, 128], and x with zeros there: f[n]."""
    if not has_kernel(x.size, x.first.dtype, rows):
        return _take_plain(x, rows)
    return choose(x, default=_take_plain, tpu=_take_on_tpu, rows=rows)


def has_kernel(size: int, dtype: Any, rows: int) -> bool:
    """Whether `take_largest` is a kernel in the place where this is traced."""
    return fused(size, dtype) and rows % SUBLANES == 0 and size >= rows * LANES


def _take_on_tpu(x: Flat, rows: int) -> tuple[Array, Array, Array]:
    from gradzip._kernels import mosaic  # there is a TPU, or Pallas to compile for one

    return one_at_a_time(lambda x: mosaic.columns.take_largest(x, rows), x)


def _take_plain(x: Flat, rows: int) -> tuple[Array, Array, Array]:
    total = x.total
    places = largest_places(total, rows)
    values, indices = read(total, indices_of(places, rows).ravel())
    return places, values.reshape(places.shape), remove(total, indices)


def indices_of(places: Array, rows: int) -> Array:
    """Where in the flat array the entries are: i32[tiles, 128]."""
    tile = lax.broadcasted_iota(jnp.int32, places.shape, 0)
    return (tile * rows + places) * LANES + lax.broadcasted_iota(jnp.int32, places.shape, 1)


def spread(values: Array, places: Array, rows: int) -> Array:
    """Zeros, but for these entries, of all tiles: f[tiles, rows, 128]."""
    shape = (places.shape[0], rows, LANES)
    mine = lax.broadcasted_iota(jnp.int32, shape, 1) == places[:, None]
    return jnp.where(mine, values[:, None], 0)
