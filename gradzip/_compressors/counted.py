"""Entries whose number depends on the data, in a payload whose size does not."""

from __future__ import annotations

import abc
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from gradzip import _positions as positions
from gradzip._base import Array, Key, Like, with_memory
from gradzip._compressors import sparse
from gradzip._compressors.sparse import Indexed
from gradzip._kernels.bits import select
from gradzip._kernels.fused import Flat, fused
from gradzip._kernels.platform import choose
from gradzip._kernels.selection import take_top_k, top_k
from gradzip._kernels.words import pack
from gradzip._positions import Positions


class Counted(NamedTuple):
    """Some entries of a flat array, in its order, in the first places of a payload."""

    values: Array  # f[places]; zero after the first `count`
    indices: Positions  # packed, of as many places
    count: Array  # i32[]


@dataclasses.dataclass(frozen=True)
class Largest(Indexed):
    """Base of compressors that keep some of the largest entries, as many as the data ask for.

    A subclass defines `_places` and `_chosen`.
    """

    @abc.abstractmethod
    def _places(self, size: int) -> int:
        """Returns how many entries of a leaf there is room for."""

    @abc.abstractmethod
    def _chosen(self, values: Array, *leaf: Array) -> Array:
        """Returns the mask of those that are kept.

        Args:
          values: the largest entries that there is room for.
          *leaf: arrays that together hold the entries of the leaf, and zeros.
        """

    def encode(self, x: Array, key: Key) -> Counted:
        del key
        sparse.check_size(self, x)
        flat = x.ravel()
        values, indices = top_k(flat, self._places(x.size))
        return keep(self._chosen(values, flat), values, indices, x.size)

    def message(self, x: Array, key: Key, memory: Array | None = None) -> tuple[Counted, Array]:
        x = with_memory(x, memory)
        if not fused(x.size, x.dtype):
            return super().message(x, key)
        return choose(x, key, default=_message, tpu=_message_in_place, how=self)

    def indices_of(self, payload: Counted, like: Like) -> Array:
        return indices_of(payload, like.size)


def _message(x: Array, key: Key, *, how: Largest) -> tuple[Counted, Array]:
    return Indexed.message(how, x, key)


def _message_in_place(x: Array, key: Key, *, how: Largest) -> tuple[Counted, Array]:
    """The same with all candidates taken out of x, and those that are not kept written back."""
    del key
    sparse.check_size(how, x)
    values, indices, rest = take_top_k(Flat(x.ravel()), how._places(x.size))
    chosen = how._chosen(values, values, rest)
    lost = rest.at[indices].set(
        jnp.where(chosen, values - values, values),  # NaN and infinity leave NaN, as elsewhere
        mode='promise_in_bounds',
        unique_indices=True,
        indices_are_sorted=True,
        wrap_negative_indices=False,
    )
    return keep(chosen, values, indices, x.size), lost.reshape(x.shape)


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
