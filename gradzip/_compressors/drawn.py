"""Entries at positions that the key determines, so that no indices are sent."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gradzip._base import Array, Compressor, Key, Like, Payload
from gradzip._compressors.sparse import add, place


class Entries(NamedTuple):
    """Some entries of a flat array, in the order in which the key names their positions."""

    values: Array  # f[k]


@dataclasses.dataclass(frozen=True)
class Drawn(Compressor):
    """A linear compressor that keeps drawn entries, and touches only these in what is left."""

    linear: ClassVar[bool] = True
    random: ClassVar[bool] = True
    sparse: ClassVar[bool] = True

    @abc.abstractmethod
    def positions(self, size: int, key: Key) -> Array:
        """The kept positions, distinct: i32[k]. `size` marks an unused place."""

    def decode(self, payload: Entries, like: Like, key: Key) -> Array:
        return place(payload.values, self.positions(like.size, key), like)

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        """Adds one payload after the other to the same array, as `Indexed` does."""

        def receive(worker: Array | int, total: Array) -> Array:
            payload = jax.tree.map(lambda a: a[worker], payloads)
            values = payload.values / keys.shape[0]
            return add(total, values, self.positions(like.size, keys[worker]))

        first = receive(0, jnp.zeros(like.shape, like.dtype))
        return lax.fori_loop(1, keys.shape[0], receive, first)

    def remainder(self, x: Array, payload: Payload, key: Key) -> Array:
        return add(x, -payload.values, self.positions(x.size, key))
