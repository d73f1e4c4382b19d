"""Some entries of an array and where they stand: what the sparse compressors share."""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import lax

from gradzip import _checks as checks, _positions as positions
from gradzip._base import Array, Compressor, Key, Like, Payload, like_of
from gradzip._kernels import selection
from gradzip._positions import Positions

LARGE = 1 << 17  # up to here lax.top_k costs at most milliseconds, and compiles faster,
MANY = 1 << 10  # unless it has to bring so many entries into order

Form = Literal['packed', 'plain']


class Sparse(NamedTuple):
    """Some entries of a flat array, in its order."""

    values: Array  # f[k]
    indices: Positions | Array  # packed, or i32[k]; distinct, ascending


@dataclasses.dataclass(frozen=True)
class Indexed(Compressor):
    """Keeps entries, `values`, at places that its payload tells: no algorithm, only that form."""

    sparse: ClassVar[bool] = True
    selects: ClassVar[bool] = True

    @abc.abstractmethod
    def indices_of(self, payload: Payload, like: Like) -> Array:
        """Where the values stood, i32[k]; `like.size`, which is out of bounds, for none."""

    def decode(self, payload: Payload, like: Like, key: Key) -> Array:
        del key
        return _place(payload.values, self.indices_of(payload, like), like)

    def decode_mean(self, payloads: Payload, like: Like, keys: Key) -> Array:
        """Payload by payload into the same array.

        Only their entries of it are touched, where a sum of dense arrays passes over memory for
        every worker, and all indices at once would not fit a cache.
        """
        workers = keys.shape[0]

        def receive(worker: Array | int, total: Array) -> Array:
            payload = jax.tree.map(lambda a: a[worker], payloads)
            return _add(total, payload.values / workers, self.indices_of(payload, like))

        first = receive(0, jnp.zeros(like.shape, like.dtype))
        return lax.fori_loop(1, workers, receive, first)

    def remainder(self, x: Array, payload: Payload, key: Key) -> Array:
        del key
        return _add(x, -payload.values, self.indices_of(payload, like_of(x)))


def check_form(owner: str, form: str) -> None:
    """Refuses what is no way to write indices."""
    checks.one_of(owner, 'indices', form, get_args(Form))


def check_size(owner: object, x: Array) -> None:
    """Refuses arrays that int32 cannot index."""
    if x.size >= 1 << 31:
        raise ValueError(
            f'{owner!r} indexes entries with int32, but an array of shape {x.shape} has '
            f'{x.size} of them: split the parameter.'
        )


def largest(flat: Array, count: int) -> tuple[Array, Array]:
    """The entries of largest magnitude and their indices, ascending: f[count], i32[count]."""
    if flat.size > LARGE or count > MANY:
        return selection.top_k(flat, count)
    return selection.sorted_top_k(flat, count)


def write(indices: Array, size: int, form: Form) -> Positions | Array:
    """Indices as they travel; one that equals `size` stands for no entry."""
    return positions.encode(indices, size) if form == 'packed' else indices


def read(indices: Positions | Array, count: int, size: int) -> Array:
    """Indices as they were written: i32[count]."""
    return positions.decode(indices, count, size) if isinstance(indices, Positions) else indices


def _place(values: Array, indices: Array, like: Like) -> Array:
    """Zeros, but for these values at distinct flat indices; indices out of bounds are dropped.

    The values are written rather than added, because an addition flushes subnormal numbers to zero
    on CPU and TPU: they would be missing from what was sent and from the remainder.
    """
    flat = jnp.zeros(like.size, like.dtype)
    flat = flat.at[indices].set(values, mode='drop', wrap_negative_indices=False)
    return flat.reshape(like.shape)


def _add(x: Array, values: Array, indices: Array) -> Array:
    """x with something added at distinct flat indices; those outside are dropped.

    In place where x is donated or dies here.
    """
    flat = x.ravel().at[indices].add(values, mode='drop', wrap_negative_indices=False)
    return flat.reshape(x.shape)
