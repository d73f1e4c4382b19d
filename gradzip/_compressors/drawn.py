"""Entries at positions that the key determines, so that no indices are sent."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, NamedTuple

from gradzip._base import Array, Compressor, Key, Like, Payload
from gradzip._compressors.sparse import add, place
from gradzip._kernels.in_turn import add_entries


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

        def entries(payload: Entries, key: Key) -> tuple[Array, Array]:
            return payload.values / keys.shape[0], self.positions(like.size, key)

        return add_entries(add, entries, (payloads, keys), like, payloads.values[0].size)

    def remainder(self, x: Array, payload: Payload, key: Key) -> Array:
        return add(x, -payload.values, self.positions(x.size, key))
