"""Entries whose number depends on the data, in a payload whose size does not."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _positions as positions
from gradzip._base import Array
from gradzip._kernels.bits import select
from gradzip._kernels.words import pack
from gradzip._positions import Positions


class Counted(NamedTuple):
    """Some entries of a flat array, in its order, in the first places of a payload."""

    values: Array  # f[places]; zero after the first `count`
    indices: Positions  # packed, of as many places
    count: Array  # i32[]


def keep(chosen: Array, values: Array, indices: Array, size: int) -> Counted:
    """Keeps those of some entries that a mask chooses.

    Args:
      chosen: bool[places], the mask.
      values: f[places], the entries.
      indices: i32[places], where they stand in the array, ascending.
      size: of the array.
    """
    places = values.size
    count = jnp.sum(chosen, dtype=jnp.int32)
    taken = lax.iota(jnp.int32, places) < count
    front = jnp.where(taken, select(pack(chosen, 1), places), 0) if places else indices
    values = jnp.where(taken, values[front], 0)
    return Counted(values, positions.encode(jnp.where(taken, indices[front], size), size), count)


def indices_of(payload: Counted, size: int) -> Array:
    """Where the entries stood: i32[places]. Unused places get `size`, which is out of bounds."""
    places = payload.values.size
    indices = positions.decode(payload.indices, places, size)
    return jnp.where(lax.iota(jnp.int32, places) < payload.count, indices, size)
