"""Matrices as they lie in the memory of a TPU, read and written as rows of 128 lanes.

The wire formats number the entries of a leaf row by row. A TPU keeps a matrix in tiles of 8 rows
and 128 lanes, so that XLA would copy it to make it flat, and once more to make the result a matrix
again. A kernel reads some rows of the matrix and puts its rows of lanes in order in on-chip memory:
a row of a matrix with `wide` times 128 columns is `wide` rows of lanes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.experimental import pallas as pl

from gradzip._kernels.fused import tiled
from gradzip._kernels.mosaic.lanes import LANES, SUBLANES
from gradzip._kernels.mosaic.tiles import total_of


def width(shape: tuple[int, ...], unit: int, most: int) -> int:
    """How many rows of lanes a row of a leaf is, or 1 for a leaf that a kernel reads as flat.

    Args:
      shape: of the leaf.
      unit: rows of lanes that a step of the kernel handles a multiple of.
      most: rows of lanes that it can hold.
    """
    if not tiled(shape):
        return 1
    wide = shape[-1] // LANES
    return wide if least(wide, unit) <= most else 1


def least(wide: int, unit: int) -> int:
    """The fewest rows of lanes that are whole tiles of such a matrix and a multiple of `unit`."""
    return math.lcm(unit, SUBLANES * wide) if wide > 1 else unit


def rows_spec(step: int, wide: int) -> pl.BlockSpec:
    """So many rows of lanes in a step, as the matrix has them."""
    return pl.BlockSpec((step // wide, wide * LANES), lambda i: (i, 0))


def gather(refs: Sequence[Any], flat: Any, wide: int) -> None:
    """Adds some rows of matrices and writes them into rows of lanes.

    Args:
      refs: f32[rows, wide * 128] each.
      flat: where the sum is written, f32[rows * wide, 128].
      wide: rows of lanes in a row.
    """

    def one(number: jax.Array, carry: int) -> int:
        flat[_every(number, flat, wide), :] = total_of(refs, (slice(None), _lanes(number)))
        return carry

    lax.fori_loop(0, wide, one, 0)


def spread(flat: Any, ref: Any, wide: int) -> None:
    """Writes rows of lanes into rows of a matrix."""

    def one(number: jax.Array, carry: int) -> int:
        ref[:, _lanes(number)] = flat[_every(number, flat, wide), :]
        return carry

    lax.fori_loop(0, wide, one, 0)


def _every(number: jax.Array, flat: Any, wide: int) -> Any:
    """The rows of lanes at one place of each row of the matrix."""
    return pl.ds(number, flat.shape[0] // wide, wide)


def _lanes(number: jax.Array) -> Any:
    return pl.ds(pl.multiple_of(number * LANES, LANES), LANES)
