"""Arrays made flat in the order in which they lie in memory, for scatters.

XLA scatters into flat arrays on TPU. There a matrix lies in tiles of 8 rows and 128 lanes, and to
copy it into the order of its rows and back takes four passes. In the order of tiles it is flat as
it lies. Elsewhere, and for other shapes, the order is that of rows.
"""

from __future__ import annotations

import jax.numpy as jnp

from gradzip._base import Array, Like
from gradzip._kernels.fused import LANES, SUBLANES, tiled


def as_it_lies(x: Array) -> Array:
    """The entries of an array, flat."""
    if not tiled(x.shape):
        return x.ravel()
    rows = x.reshape(-1, SUBLANES, x.shape[-1] // LANES, LANES)
    return jnp.swapaxes(rows, 1, 2).ravel()


def in_shape(flat: Array, like: Like) -> Array:
    """The array whose entries `as_it_lies` returned."""
    if not tiled(like.shape):
        return flat.reshape(like.shape)
    tiles = flat.reshape(-1, like.shape[-1] // LANES, SUBLANES, LANES)
    return jnp.swapaxes(tiles, 1, 2).reshape(like.shape)


def places(indices: Array, like: Like) -> Array:
    """Where in it the entries with some numbers are. What is out of bounds stays so."""
    if not tiled(like.shape):
        return indices
    width = like.shape[-1]
    row, column = indices // width, indices % width
    tile = row // SUBLANES * (width // LANES) + column // LANES
    return (tile * SUBLANES + row % SUBLANES) * LANES + column % LANES
