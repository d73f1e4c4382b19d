"""Entries and indices: what the sparse compressors have in common."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, Literal, NamedTuple, get_args

import jax.numpy as jnp

from gradzip import _checks as checks, _positions as positions
from gradzip._base import Array, Compressor, Key, Like, Payload, like_of
from gradzip._kernels.in_turn import add_entries
from gradzip._kernels.layout import as_it_lies, in_shape, places
from gradzip._positions import Positions

Form = Literal['packed', 'plain']


class Sparse(NamedTuple):
    """Some entries of a flat array, in its order."""

    values: Array  # f[k]
    indices: Positions | Array  # packed, or i32[k]; distinct, ascending


@dataclasses.dataclass(frozen=True)
class Indexed(Compressor):
    """A compressor whose payload has `values` and says where in the array they stood."""

    sparse: ClassVar[bool] = True
    selects: ClassVar[bool] = True

    @abc.abstractmethod
    def indices_of(self, payload: Payload, like: Like) -> Array:
        """Where the values stood: i32[k]. An index of `like.size` marks an unused place."""

    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        del key
        return place(payload.values, self.indices_of(payload, like), like)

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        """Adds one payload after the other to the same array, or a few small ones at once.

        This touches only the entries that were sent. A sum of dense arrays would read and write
        memory for every worker, and the indices of all workers at once would not fit a cache.
        """

        def entries(payload: Payload) -> tuple[Array, Array]:
            return payload.values / keys.shape[0], places(self.indices_of(payload, like), like)

        # What is added to is flat in every turn, and takes the shape of the leaf at the end.
        total, kept = Like((like.size,), like.dtype), payloads.values[0].size
        return in_shape(add_entries(_add, entries, (payloads,), total, kept), like)

    def remainder(self, x: Array, payload: Payload, key: Key) -> Array:
        del key
        return add(x, -payload.values, self.indices_of(payload, like_of(x)))


def check_form(owner: str, form: str) -> None:
    """Raises ValueError for an unknown index format."""
    checks.one_of(owner, 'indices', form, get_args(Form))


def check_size(owner: object, x: Array) -> None:
    """Raises ValueError for an array that int32 cannot index."""
    if x.size >= 1 << 31:
        raise ValueError(
            f'{owner!r} indexes entries with int32, but an array of shape {x.shape} has '
            f'{x.size} of them: split the parameter.'
        )


def write(indices: Array, size: int, form: Form) -> Positions | Array:
    """Indices in the form in which they are sent; one that equals `size` stands for no entry."""
    return positions.encode(indices, size) if form == 'packed' else indices


def read(indices: Positions | Array, count: int, size: int) -> Array:
    """The indices that `write` was given: i32[count]."""
    return positions.decode(indices, count, size) if isinstance(indices, Positions) else indices


def place(values: Array, indices: Array, like: Like) -> Array:
    """Zeros, but for these values at distinct flat indices; indices out of bounds are dropped.

    The values are written rather than added, because an addition flushes subnormal numbers to zero
    on CPU and TPU: they would be missing from what was sent and from the remainder.
    """
    flat = jnp.zeros(like.size, like.dtype).at[places(indices, like)]
    return in_shape(flat.set(values, mode='drop', wrap_negative_indices=False), like)


def add(x: Array, values: Array, indices: Array) -> Array:
    """Adds values at distinct flat indices; those that are out of bounds are dropped.

    XLA works in place if x is donated or is not used afterwards.
    """
    like = like_of(x)
    return in_shape(_add(as_it_lies(x), values, places(indices, like)), like)


def _add(flat: Array, values: Array, indices: Array) -> Array:
    return flat.at[indices].add(values, mode='drop', wrap_negative_indices=False)
