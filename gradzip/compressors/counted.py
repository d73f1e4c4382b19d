"""Entries whose number depends on the data, in a payload whose size does not."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradzip import positions
from gradzip.base import Array, Key, Like
from gradzip.compressors import sparse
from gradzip.kernels.selection import select
from gradzip.packing import pack
from gradzip.positions import Positions


class Counted(NamedTuple):
    """Some entries of a flat array, in its order, at the front of the places there are."""

    values: Array  # f[places]; zero after the first `count`
    indices: Positions  # packed, of as many places
    count: Array  # i32[]


def keep(chosen: Array, values: Array, indices: Array, size: int) -> Counted:
    """Of some entries, ascending, those that a mask chooses."""
    places = values.size
    count = jnp.sum(chosen, dtype=jnp.int32)
    taken = lax.iota(jnp.int32, places) < count
    front = jnp.where(taken, select(pack(chosen, 1), places), 0) if places else indices
    values = jnp.where(taken, values[front], 0)
    return Counted(values, positions.encode(jnp.where(taken, indices[front], size), size), count)


def decode(payload: Counted, like: Like) -> Array:
    """The kept entries where they stood, zeros elsewhere."""
    return sparse.spread(payload.values, _indices(payload, like.size), like)


def decode_mean(payloads: Counted, like: Like, keys: Key) -> Array:
    """The mean of many of them, in one scatter."""
    indices = jax.vmap(lambda payload: _indices(payload, like.size))(payloads)
    return sparse.spread(payloads.values / keys.shape[0], indices, like)


def remainder(x: Array, payload: Counted) -> Array:
    """x without what the payload holds."""
    return sparse.add(x, -payload.values, _indices(payload, x.size))


def _indices(payload: Counted, size: int) -> Array:
    """Where the entries stood; `size`, which is out of bounds, for places that hold none."""
    places = payload.values.shape[-1]
    indices = positions.decode(payload.indices, places, size)
    return jnp.where(lax.iota(jnp.int32, places) < payload.count, indices, size)
